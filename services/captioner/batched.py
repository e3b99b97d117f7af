"""A local captioner behind the batcher, which brings together the pictures of all callers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from PIL import Image

from dnd.errors import DndError, FailedPrecondition
from dnd.profiles import CaptionSettings
from dnd.serving import DynamicBatcher, Metrics
from dnd.settings import ModelServerSettings
from dnd.types import ModelInfo, OrError, RequestContext
from dnd_services.captioner.backend import Bucket, Captioner, Tokens
from dnd_services.captioner.prompting import Prepared


class BatchedCaptioner:
    """As `CaptionModel`.

    Args:
        captioner: The loaded model.
        settings: Size and patience of batches.
        metrics: Where they are counted.
    """

    def __init__(
        self, captioner: Captioner, settings: ModelServerSettings, metrics: Metrics
    ) -> None:
        self._captioner = captioner
        self._batcher = DynamicBatcher[Bucket, Prepared, Tokens](
            captioner.generate,
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            max_wait_ms=settings.max_wait_ms,
            metrics=metrics,
        )

    @property
    def info(self) -> ModelInfo:
        return self._captioner.info

    def prepare(self, image: Image.Image) -> Prepared:
        return self._captioner.prepare(image)

    async def caption(
        self,
        items: Sequence[OrError[Prepared]],
        settings: CaptionSettings,
        *,
        context: RequestContext,
        timeout_s: float | None,
    ) -> list[OrError[str]]:
        answers = await self._batcher.submit_good(
            lambda item: (settings, item.shapes), items, context=context, timeout_s=timeout_s
        )
        return await asyncio.to_thread(self._read, answers)

    async def label(
        self,
        items: Sequence[OrError[Prepared]],
        num_labels: int,
        *,
        context: RequestContext,
        timeout_s: float | None,
    ) -> list[OrError[tuple[str, ...]]]:
        raise FailedPrecondition(
            f"{self.info.name} ({self.info.architecture}) captions pictures one by one and names "
            "nothing that several share: give the captioner a vision-language model, "
            "DND_MODEL=openai:NAME, or set caption.num_labels to 0."
        )

    async def close(self) -> None:
        await self._batcher.close()

    def _read(self, answers: list[OrError[Tokens]]) -> list[OrError[str]]:
        return [
            answer if isinstance(answer, DndError) else self._captioner.read(answer)
            for answer in answers
        ]
