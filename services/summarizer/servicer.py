"""dnd.v1.SummarizerService: checks and converts; the proposer asks the language model."""

from __future__ import annotations

from typing import Any

import grpc

from dnd.convert import from_message, to_item, to_message
from dnd.profiles import ProposeSettings
from dnd.serving import StageService
from dnd.serving.inputs import (
    check_count,
    check_digest,
    check_range,
    raise_if_none_was_asked,
    remaining_s,
    request_context,
)
from dnd.types import UnitCaptions
from dnd.v1 import summarizer_pb2, summarizer_pb2_grpc, types_pb2
from dnd_services.summarizer.llm import ChatModel
from dnd_services.summarizer.prompting import PromptSets
from dnd_services.summarizer.proposing import Proposer

FULL_NAME = "dnd.v1.SummarizerService"
MAX_UNITS = 64
MAX_CAPTIONS = 32
MAX_GIVEN = 32
MAX_CONTRAST = 16


class SummarizerServicer(summarizer_pb2_grpc.SummarizerServiceServicer):
    """Candidate concepts of units, from their captions.

    Args:
        model: The language model.
        prompts: The prompt sets that requests may name.
    """

    def __init__(self, model: ChatModel, prompts: PromptSets) -> None:
        self._model = model
        self._prompts = prompts

    async def GetSummarizerModel(
        self,
        request: summarizer_pb2.GetSummarizerModelRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> summarizer_pb2.GetSummarizerModelResponse:
        model = to_message(self._model.info, types_pb2.ModelInfo)
        return summarizer_pb2.GetSummarizerModelResponse(model=model)

    async def ProposeConcepts(
        self,
        request: summarizer_pb2.ProposeConceptsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> summarizer_pb2.ProposeConceptsResponse:
        check_count("units", len(request.units), 1, MAX_UNITS)
        for unit in request.units:
            check_count("captions of a unit", len(unit.captions), 1, MAX_CAPTIONS)
            check_count("candidates of a unit", len(unit.candidates), 0, MAX_GIVEN)
            check_count("contrast captions of a unit", len(unit.contrast), 0, MAX_CONTRAST)
        check_digest(request.model_digest, self._model.info.digest)
        settings = from_message(request.settings, ProposeSettings)
        _check(settings)
        proposer = Proposer(
            self._model,
            self._prompts.get(settings.prompt_set),
            settings,
            request_context(request),
            remaining_s(context),
        )
        proposals = await proposer.propose(
            [from_message(unit, UnitCaptions) for unit in request.units]
        )
        raise_if_none_was_asked(proposals)
        return summarizer_pb2.ProposeConceptsResponse(
            proposals=[to_item(one, summarizer_pb2.Proposal) for one in proposals]
        )


def stage_service(model: ChatModel, prompts: PromptSets) -> StageService:
    """The servicer around a language model, ready to be added to a server."""
    servicer = SummarizerServicer(model, prompts)

    def add(server: grpc.aio.Server) -> None:
        summarizer_pb2_grpc.add_SummarizerServiceServicer_to_server(servicer, server)

    return StageService(FULL_NAME, add, model.close)


def _check(settings: ProposeSettings) -> None:
    check_range("settings.num_summaries", settings.num_summaries, 1, 16)
    check_range("settings.temperature", settings.temperature, 0, 2)
    check_range("settings.num_phrases", settings.num_phrases, 0, 8)
    check_range("settings.max_candidates", settings.max_candidates, 1, 32)
