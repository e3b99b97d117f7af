"""The captioner as an operator runs it: a process that serves, is watched, and drains."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from PIL import Image
from processes import exit_of, run_service
from tiny.captioners import save_blip

from dnd.artifacts import ArtifactStore
from dnd.images import encode_png
from dnd.serving.metrics import read_counts
from dnd.v1 import captioner_pb2, captioner_pb2_grpc, types_pb2

SETTINGS = captioner_pb2.CaptionSettings(max_new_tokens=8, min_length=5, num_beams=1)


def test_process_serves_is_watched_and_drains(tmp_path: Path) -> None:
    with (
        run_service(
            "captioner",
            tmp_path,
            model=save_blip(tmp_path),
            max_batch=4,
            fixed_batch=True,
            threads=2,
            max_wait_ms=500,
        ) as service,
        ThreadPoolExecutor(1) as caller,
    ):
        service.check_watchable("dnd.v1.CaptionerService")
        store = ArtifactStore(service.artifacts)
        pictures = [Image.new("RGB", (40, 40), colour) for colour in ("red", "green", "blue")]
        request = captioner_pb2.CaptionImagesRequest(
            images=[types_pb2.Image(ref=store.put_bytes(encode_png(one))) for one in pictures],
            settings=SETTINGS,
        )
        stub = captioner_pb2_grpc.CaptionerServiceStub(grpc.insecure_channel(service.address))
        captions = stub.CaptionImages(request, timeout=60).captions
        assert len(captions) == 3
        assert all(caption.text and not caption.HasField("error") for caption in captions)
        counts = read_counts(service.metrics)
        assert (counts.num_rpcs, counts.num_items, counts.num_batches) == (1, 3, 1)

        late = caller.submit(stub.CaptionImages, request, timeout=60)
        while service.num_queued() == 0:
            assert not late.done()
        status, log = service.stop()
        assert status == 0, log
        assert late.result().captions == captions


def test_process_with_a_remote_model_starts_without_it_and_says_that_it_is_away(
    tmp_path: Path,
) -> None:
    with run_service(
        "captioner", tmp_path, model="openai:some-model", base_url="http://127.0.0.1:9/v1"
    ) as service:
        stub = captioner_pb2_grpc.CaptionerServiceStub(grpc.insecure_channel(service.address))
        answer = stub.GetCaptionerModel(captioner_pb2.GetCaptionerModelRequest(), timeout=30)
        model = answer.model
        assert (model.name, model.device, model.digest) == ("openai:some-model", "remote", "")
        image = types_pb2.Image(data=encode_png(Image.new("RGB", (40, 40))))
        request = captioner_pb2.CaptionImagesRequest(images=[image], settings=SETTINGS)
        with pytest.raises(grpc.RpcError) as caught:
            stub.CaptionImages(request, timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "DND_BASE_URL" in caught.value.details()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "/no/such/model"}, "no weights at '/no/such/model'"),
        ({"model": ""}, "DND_MODEL is not set"),
        ({"model": "owner/captioner"}, "pinned revision"),
        ({"model": "x", "max_batch": 0}, "DND_MAX_BATCH = 0"),
        ({"model": "x", "dtype": "float8"}, "DND_DTYPE = 'float8'"),
        ({"model": "x", "host": "0.0.0.0"}, "loopback only"),
        ({"model": "x", "fixed_batch": "perhaps"}, "DND_FIXED_BATCH = 'perhaps'"),
        ({"model": "x", "prompt": "a" * 2001}, "DND_PROMPT has 2001 characters"),
        ({"model": "openai:"}, "after the colon"),
        ({"model": "openai:m", "base_url": "host:80"}, "DND_BASE_URL = 'host:80'"),
        ({"model": "openai:m", "api_key_file": "/no/such"}, "DND_API_KEY_FILE = '/no/such'"),
        ({"model": "x", "base_url": "http://127.0.0.1:9/v1"}, "'x' is a local model"),
    ],
)
def test_process_ends_with_a_sentence_when_a_setting_is_bad(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    status, log = exit_of("captioner", **{"artifacts": tmp_path} | settings)
    assert status == 2
    assert message in log
    assert "Traceback" not in log
