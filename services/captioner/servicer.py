"""dnd.v1.CaptionerService: checks and converts; the backend computes."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from dnd.artifacts import ArtifactStore
from dnd.convert import error_message, from_message, to_message
from dnd.errors import BadSetting, DndError
from dnd.profiles import CaptionSettings
from dnd.serving import DynamicBatcher, Metrics, StageService
from dnd.serving.inputs import (
    check_count,
    check_digest,
    check_range,
    prepare_images,
    remaining_s,
    request_context,
)
from dnd.settings import ModelServerSettings
from dnd.types import OrError
from dnd.v1 import captioner_pb2, captioner_pb2_grpc, types_pb2
from dnd_services.captioner.backend import Bucket, Captioner, Tokens
from dnd_services.captioner.prompting import Prepared

FULL_NAME = "dnd.v1.CaptionerService"
MAX_IMAGES = 256


class CaptionerServicer(captioner_pb2_grpc.CaptionerServiceServicer):
    """Captions of images, batched over callers.

    Args:
        captioner: The loaded model.
        batcher: Runs `captioner.generate`.
        store: Where images lie.
    """

    def __init__(
        self,
        captioner: Captioner,
        batcher: DynamicBatcher[Bucket, Prepared, Tokens],
        store: ArtifactStore,
    ) -> None:
        self._captioner = captioner
        self._batcher = batcher
        self._store = store

    async def GetCaptionerModel(
        self,
        request: captioner_pb2.GetCaptionerModelRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> captioner_pb2.GetCaptionerModelResponse:
        model = to_message(self._captioner.info, types_pb2.ModelInfo)
        return captioner_pb2.GetCaptionerModelResponse(model=model)

    async def CaptionImages(
        self,
        request: captioner_pb2.CaptionImagesRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> captioner_pb2.CaptionImagesResponse:
        check_count("images", len(request.images), 1, MAX_IMAGES)
        check_digest(request.model_digest, self._captioner.info.digest)
        settings = from_message(request.settings, CaptionSettings)
        _check(settings)
        items = await prepare_images(request.images, self._store, self._captioner.prepare)
        answers = await self._batcher.submit_good(
            lambda item: (settings, item.shapes),
            items,
            context=request_context(request),
            timeout_s=remaining_s(context),
        )
        captions = await asyncio.to_thread(self._read, answers)
        return captioner_pb2.CaptionImagesResponse(captions=captions)

    def _read(self, answers: list[OrError[Tokens]]) -> list[captioner_pb2.Caption]:
        texts = [
            answer if isinstance(answer, DndError) else self._captioner.read(answer)
            for answer in answers
        ]
        return [
            captioner_pb2.Caption(error=error_message(text))
            if isinstance(text, DndError)
            else captioner_pb2.Caption(text=text)
            for text in texts
        ]


def stage_service(
    captioner: Captioner, settings: ModelServerSettings, metrics: Metrics
) -> StageService:
    """The servicer with its batcher, ready to be added to a server."""
    batcher = DynamicBatcher[Bucket, Prepared, Tokens](
        captioner.generate,
        max_batch=settings.max_batch,
        max_queue=settings.max_queue,
        max_wait_ms=settings.max_wait_ms,
        metrics=metrics,
    )
    servicer = CaptionerServicer(captioner, batcher, ArtifactStore(settings.artifacts))

    def add(server: grpc.aio.Server) -> None:
        captioner_pb2_grpc.add_CaptionerServiceServicer_to_server(servicer, server)

    return StageService(FULL_NAME, add, batcher.close)


def _check(settings: CaptionSettings) -> None:
    check_range("settings.max_new_tokens", settings.max_new_tokens, 1, 256)
    check_range("settings.num_beams", settings.num_beams, 1, 8)
    check_range("settings.min_length", settings.min_length, 0, 256)
    if settings.min_length > settings.max_new_tokens:
        raise BadSetting(
            f"settings.min_length is {settings.min_length}: expected at most "
            f"settings.max_new_tokens, which is {settings.max_new_tokens}."
        )
