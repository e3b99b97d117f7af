"""dnd.v1.CaptionerService: checks and converts; the backend computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from dnd.artifacts import ArtifactStore
from dnd.convert import error_message, from_message, to_message
from dnd.errors import BadSetting, DndError
from dnd.profiles import CaptionSettings
from dnd.serving import StageService
from dnd.serving.inputs import (
    check_count,
    check_digest,
    check_range,
    prepare_images,
    raise_if_none_was_asked,
    remaining_s,
    request_context,
)
from dnd.types import OrError
from dnd.v1 import captioner_pb2, captioner_pb2_grpc, types_pb2
from dnd_services.captioner.model import CaptionModel

FULL_NAME = "dnd.v1.CaptionerService"
MAX_IMAGES = 256
MAX_LABELS = 16


class CaptionerServicer(captioner_pb2_grpc.CaptionerServiceServicer):
    """Captions of images, or labels of montages.

    Args:
        model: Local or behind an API.
        store: Where images lie.
    """

    def __init__(self, model: CaptionModel[Any], store: ArtifactStore) -> None:
        self._model = model
        self._store = store

    async def GetCaptionerModel(
        self,
        request: captioner_pb2.GetCaptionerModelRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> captioner_pb2.GetCaptionerModelResponse:
        model = to_message(self._model.info, types_pb2.ModelInfo)
        return captioner_pb2.GetCaptionerModelResponse(model=model)

    async def CaptionImages(
        self,
        request: captioner_pb2.CaptionImagesRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> captioner_pb2.CaptionImagesResponse:
        check_count("images", len(request.images), 1, MAX_IMAGES)
        check_digest(request.model_digest, self._model.info.digest)
        check_range("num_labels", request.num_labels, 0, MAX_LABELS)
        settings = from_message(request.settings, CaptionSettings)
        _check(settings)
        items = await prepare_images(request.images, self._store, self._model.prepare)
        caller, timeout_s = request_context(request), remaining_s(context)
        answers: Sequence[OrError[str | tuple[str, ...]]]
        if request.num_labels:
            answers = await self._model.label(
                items, request.num_labels, context=caller, timeout_s=timeout_s
            )
        else:
            answers = await self._model.caption(
                items, settings, context=caller, timeout_s=timeout_s
            )
        raise_if_none_was_asked(answers)
        return captioner_pb2.CaptionImagesResponse(captions=map(_to_message, answers))


def stage_service(model: CaptionModel[Any], store: ArtifactStore) -> StageService:
    """The servicer around a model, ready to be added to a server."""
    servicer = CaptionerServicer(model, store)

    def add(server: grpc.aio.Server) -> None:
        captioner_pb2_grpc.add_CaptionerServiceServicer_to_server(servicer, server)

    return StageService(FULL_NAME, add, model.close)


def _to_message(answer: OrError[str | tuple[str, ...]]) -> captioner_pb2.Caption:
    if isinstance(answer, DndError):
        return captioner_pb2.Caption(error=error_message(answer))
    if isinstance(answer, str):
        return captioner_pb2.Caption(text=answer)
    return captioner_pb2.Caption(labels=answer)


def _check(settings: CaptionSettings) -> None:
    check_range("settings.max_new_tokens", settings.max_new_tokens, 1, 256)
    check_range("settings.num_beams", settings.num_beams, 1, 8)
    check_range("settings.min_length", settings.min_length, 0, 256)
    if settings.min_length > settings.max_new_tokens:
        raise BadSetting(
            f"settings.min_length is {settings.min_length}: expected at most "
            f"settings.max_new_tokens, which is {settings.max_new_tokens}."
        )
