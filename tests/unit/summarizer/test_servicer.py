"""The service over gRPC: order, per-unit errors, limits."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from local_server import reason, serve
from unit.summarizer.conftest import ScriptedModel

from dnd.convert import from_item, to_message
from dnd.errors import DndError, LlmRateLimited, LlmRefused
from dnd.profiles import DEFAULT, ProposeSettings
from dnd.serving import Metrics
from dnd.types import Candidate, CandidateOrigin, OrError, Proposal, UnitCaptions
from dnd.v1 import summarizer_pb2, summarizer_pb2_grpc
from dnd_services.summarizer.llm import ChatAnswer, ChatCall
from dnd_services.summarizer.prompting import PromptSets
from dnd_services.summarizer.servicer import stage_service

LAKE = UnitCaptions(("a lake", "a sea"), 1, (Candidate("wet", CandidateOrigin.CONCEPT_SET),))
BIRD = UnitCaptions(("an owl", "a gull"), 2)


class Service:
    """A running summarizer whose language model says what a test wants."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = summarizer_pb2_grpc.SummarizerServiceStub(channel)
        self.model = ScriptedModel(self.say)
        self.answers: dict[str, OrError[ChatAnswer] | str] = {"lake": "water", "owl": "bird"}

    def say(self, call: ChatCall) -> OrError[ChatAnswer] | str:
        asked = call.messages[-1].content
        return next(answer for word, answer in self.answers.items() if word in asked)

    async def propose(
        self, *units: UnitCaptions, digest: str = "", **changes: object
    ) -> list[OrError[Proposal]]:
        settings = to_message(DEFAULT.propose, summarizer_pb2.ProposeSettings)
        for name, value in changes.items():
            setattr(settings, name, value)
        answer = await self.stub.ProposeConcepts(
            summarizer_pb2.ProposeConceptsRequest(
                units=[to_message(unit, summarizer_pb2.UnitCaptions) for unit in units],
                settings=settings,
                model_digest=digest,
            )
        )
        return [from_item(one, Proposal) for one in answer.proposals]


@pytest_asyncio.fixture
async def service(prompts: PromptSets) -> AsyncIterator[Service]:
    metrics = Metrics()
    model = ScriptedModel(lambda call: running.say(call))
    async with serve(stage_service(model, prompts), metrics) as channel:
        running = Service(channel)
        running.model = model
        yield running


async def test_model_is_described(service: Service) -> None:
    answer = await service.stub.GetSummarizerModel(summarizer_pb2.GetSummarizerModelRequest())
    assert (answer.model.name, answer.model.digest) == ("scripted", "d" * 64)


async def test_proposals_come_in_request_order(service: Service) -> None:
    lake, bird = await service.propose(LAKE, BIRD, digest="d" * 64)
    assert isinstance(lake, Proposal)
    assert isinstance(bird, Proposal)
    assert lake.candidates == (
        Candidate("water", CandidateOrigin.SUMMARY),
        Candidate("wet", CandidateOrigin.CONCEPT_SET),
        Candidate("lake", CandidateOrigin.CAPTION),
        Candidate("sea", CandidateOrigin.CAPTION),
    )
    assert bird.candidates[0].text == "bird"
    assert bird.tokens.num_calls == ProposeSettings().num_summaries
    assert await service.propose(BIRD, LAKE) == [bird, lake]


async def test_unit_without_a_label_has_its_error_and_others_their_candidates(
    service: Service,
) -> None:
    service.answers["lake"] = "I am sorry"
    lake, bird = await service.propose(LAKE, BIRD)
    assert isinstance(lake, DndError)
    assert type(lake).__name__ == "BadAnswer"
    assert isinstance(bird, Proposal)


async def test_outage_of_one_unit_is_its_error(service: Service) -> None:
    service.answers["lake"] = LlmRefused("Put a valid key into DND_API_KEY_FILE.")
    lake, bird = await service.propose(LAKE, BIRD)
    assert isinstance(lake, LlmRefused)
    assert "DND_API_KEY_FILE" in lake.message
    assert isinstance(bird, Proposal)


async def test_outage_of_all_units_fails_the_call_and_says_when_to_retry(
    service: Service,
) -> None:
    for word in service.answers:
        service.answers[word] = LlmRateLimited("Slow down.", retry_after_s=7.0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.propose(LAKE, BIRD)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason(caught.value) == "LlmRateLimited"
    assert dict(caught.value.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "7000"


@pytest.mark.parametrize(
    ("units", "digest", "changes", "expected"),
    [
        ([], "", {}, "InvalidInput"),
        ([LAKE] * 65, "", {}, "RequestTooLarge"),
        ([UnitCaptions((), 1)], "", {}, "InvalidInput"),
        ([UnitCaptions(("a lake",) * 33, 1)], "", {}, "RequestTooLarge"),
        ([UnitCaptions(("a lake",), 1, (), ("a car",) * 17)], "", {}, "RequestTooLarge"),
        (
            [UnitCaptions(("a lake",), 1, (), ("a car",))],
            "",
            {"prompt_set": "paper"},
            "BadSetting",
        ),
        ([LAKE], "f" * 64, {}, "DigestMismatch"),
        ([LAKE], "", {"prompt_set": "genral"}, "UnknownName"),
        ([LAKE], "", {"prompt_set": "../paper"}, "UnknownName"),
        ([LAKE], "", {"prompt_set": "paper", "one_call": True}, "BadSetting"),
        ([LAKE], "", {"num_summaries": 0}, "InvalidInput"),
        ([LAKE], "", {"num_summaries": 17}, "InvalidInput"),
        ([LAKE], "", {"temperature": 2.5}, "InvalidInput"),
        ([LAKE], "", {"temperature": float("nan")}, "InvalidInput"),
        ([LAKE], "", {"num_phrases": 9}, "InvalidInput"),
        ([LAKE], "", {"max_candidates": 0}, "InvalidInput"),
    ],
)
async def test_bad_request_is_refused_before_anything_is_asked(
    service: Service,
    units: list[UnitCaptions],
    digest: str,
    changes: dict[str, object],
    expected: str,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.propose(*units, digest=digest, **changes)
    assert reason(caught.value) == expected
    assert not service.model.rounds
