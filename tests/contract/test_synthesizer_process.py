"""The synthesizer as an operator runs it: a process that serves, is watched, and drains."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import torch
from processes import exit_of, run_service
from tiny.pipelines import save_sd

from dnd.artifacts import ArtifactStore
from dnd.serving.metrics import read_counts
from dnd.v1 import synthesizer_pb2, synthesizer_pb2_grpc

PROMPTS = ("red apple", "blue dog", "moon", "green boat", "star")


def request(indices: Sequence[int]) -> synthesizer_pb2.SynthesizeImagesRequest:
    return synthesizer_pb2.SynthesizeImagesRequest(
        drawings=[synthesizer_pb2.Drawing(prompt=PROMPTS[i], seed=i) for i in indices],
        settings=synthesizer_pb2.SynthesisSettings(
            num_steps=4, guidance=2.5, size=64, scheduler="dpmsolver++"
        ),
    )


def test_process_serves_is_watched_and_drains(tmp_path: Path) -> None:
    with (
        run_service(
            "synthesizer",
            tmp_path,
            model=save_sd(tmp_path),
            max_batch=6,
            fixed_batch=True,
            threads=2,
            max_wait_ms=500,
        ) as service,
        ThreadPoolExecutor(1) as caller,
    ):
        service.check_watchable("dnd.v1.SynthesizerService")
        store = ArtifactStore(service.artifacts)
        stub = synthesizer_pb2_grpc.SynthesizerServiceStub(grpc.insecure_channel(service.address))

        def draw(indices: Sequence[int]) -> list[str]:
            answer = stub.SynthesizeImages(request(indices), timeout=60)
            return [image.image.ref for image in answer.images]

        together = draw(range(5))
        assert len(set(together)) == 5
        assert all(store.get_bytes(ref).startswith(b"\x89PNG") for ref in together)
        # Two threads, other rows, other companions: the same bytes.
        assert draw([4, 3, 2, 1, 0]) == together[::-1]
        assert [draw([i])[0] for i in (1, 3)] == [together[1], together[3]]
        counts = read_counts(service.metrics)
        assert (counts.num_rpcs, counts.num_items, counts.num_batches) == (4, 12, 4)

        late = caller.submit(draw, range(5))
        while service.num_queued() == 0:
            assert not late.done()
        status, log = service.stop()
        assert status == 0, log
        assert late.result() == together


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "/no/such/model"}, "no weights at '/no/such/model'"),
        ({"model": "x", "max_queue": 0}, "DND_MAX_QUEUE = 0"),
        ({"model": "x", "artifacts": ""}, "DND_ARTIFACTS is not set"),
    ],
)
def test_process_ends_with_a_sentence_when_a_setting_is_bad(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    status, log = exit_of("synthesizer", **{"artifacts": tmp_path} | settings)
    assert status == 2
    assert message in log
    assert "Traceback" not in log


def test_process_ends_with_a_sentence_when_weights_are_pickled(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "pytorch_model.bin")
    status, log = exit_of("synthesizer", artifacts=tmp_path / "artifacts", model=tmp_path)
    assert status == 2
    assert "convert them to safetensors" in log
    assert "Traceback" not in log
