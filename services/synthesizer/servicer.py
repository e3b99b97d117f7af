"""dnd.v1.SynthesizerService: checks and converts; the backend computes."""

from __future__ import annotations

from typing import Any

import grpc
from PIL import Image

from dnd.artifacts import ArtifactStore
from dnd.bucket_artifacts import open_artifacts
from dnd.convert import error_message, from_message, to_message
from dnd.errors import DndError, InvalidInput
from dnd.profiles import SynthesisSettings
from dnd.serving import DynamicBatcher, Metrics, StageService
from dnd.serving.inputs import (
    check_count,
    check_digest,
    check_range,
    put_images,
    remaining_s,
    request_context,
)
from dnd.settings import ModelServerSettings
from dnd.types import Drawing, OrError
from dnd.v1 import synthesizer_pb2, synthesizer_pb2_grpc, types_pb2
from dnd_services.synthesizer.backend import Synthesizer

FULL_NAME = "dnd.v1.SynthesizerService"
MAX_DRAWINGS = 256
MAX_PROMPT_CHARACTERS = 400


class SynthesizerServicer(synthesizer_pb2_grpc.SynthesizerServiceServicer):
    """Drawings of prompts, batched over callers.

    Args:
        synthesizer: The loaded pipeline.
        batcher: Runs `synthesizer.draw`.
        store: Where the drawings go.
    """

    def __init__(
        self,
        synthesizer: Synthesizer,
        batcher: DynamicBatcher[SynthesisSettings, Drawing, Image.Image],
        store: ArtifactStore,
    ) -> None:
        self._synthesizer = synthesizer
        self._batcher = batcher
        self._store = store

    async def GetSynthesizerModel(
        self,
        request: synthesizer_pb2.GetSynthesizerModelRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> synthesizer_pb2.GetSynthesizerModelResponse:
        model = to_message(self._synthesizer.info, types_pb2.ModelInfo)
        return synthesizer_pb2.GetSynthesizerModelResponse(model=model)

    async def SynthesizeImages(
        self,
        request: synthesizer_pb2.SynthesizeImagesRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> synthesizer_pb2.SynthesizeImagesResponse:
        check_count("drawings", len(request.drawings), 1, MAX_DRAWINGS)
        check_digest(request.model_digest, self._synthesizer.info.digest)
        settings = from_message(request.settings, SynthesisSettings)
        check_range("settings.num_steps", settings.num_steps, 1, 200)
        self._synthesizer.check(settings)
        pictures = await self._batcher.submit_good(
            lambda _: settings,
            [_checked(drawing) for drawing in request.drawings],
            context=request_context(request),
            timeout_s=remaining_s(context),
        )
        refs = await put_images(pictures, self._store)
        return synthesizer_pb2.SynthesizeImagesResponse(images=[_to_wire(ref) for ref in refs])


def stage_service(
    synthesizer: Synthesizer, settings: ModelServerSettings, metrics: Metrics
) -> StageService:
    """The servicer with its batcher, ready to be added to a server."""
    batcher = DynamicBatcher[SynthesisSettings, Drawing, Image.Image](
        lambda drawn_by, drawings: synthesizer.draw(drawn_by, drawings, batcher.is_abandoned),
        max_batch=settings.max_batch,
        max_queue=settings.max_queue,
        max_wait_ms=settings.max_wait_ms,
        metrics=metrics,
    )
    servicer = SynthesizerServicer(synthesizer, batcher, open_artifacts(settings.artifacts))

    def add(server: grpc.aio.Server) -> None:
        synthesizer_pb2_grpc.add_SynthesizerServiceServicer_to_server(servicer, server)

    return StageService(FULL_NAME, add, batcher.close)


def _checked(drawing: synthesizer_pb2.Drawing) -> OrError[Drawing]:
    if not drawing.prompt.strip() or len(drawing.prompt) > MAX_PROMPT_CHARACTERS:
        return InvalidInput(
            f"The prompt {drawing.prompt[:40]!r} has {len(drawing.prompt)} characters: expected 1 "
            f"to {MAX_PROMPT_CHARACTERS}, not only blanks."
        )
    return from_message(drawing, Drawing)


def _to_wire(ref: OrError[str]) -> synthesizer_pb2.SyntheticImage:
    if isinstance(ref, DndError):
        return synthesizer_pb2.SyntheticImage(error=error_message(ref))
    return synthesizer_pb2.SyntheticImage(image=types_pb2.Image(ref=ref))
