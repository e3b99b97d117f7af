"""Embeddings of what a request names: looked up, or computed in batches with everybody else's."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from dnd.artifacts import ArtifactStore
from dnd.chunks import chunks
from dnd.errors import DndError
from dnd.serving import DynamicBatcher, Metrics
from dnd.serving.inputs import prepare_images
from dnd.types import OrError, RequestContext
from dnd.v1 import types_pb2
from dnd_services.scorer.backend import Bucket, ClipModel, Prepared
from dnd_services.scorer.cache import EmbeddingCache, Vector

CHUNK = 64
"""Images prepared at once: a prepared image takes 600 kB, and a request may name thousands."""


class Embedder:
    """Embeds texts and images, each once.

    Args:
        clip: The loaded model.
        batcher: Runs `clip.embed`.
        store: Where images lie.
        cache: Embeddings that were computed before.
        metrics: Where items that the cache spares are counted.
    """

    def __init__(
        self,
        clip: ClipModel,
        batcher: DynamicBatcher[Bucket, Prepared, Vector],
        store: ArtifactStore,
        cache: EmbeddingCache,
        metrics: Metrics,
    ) -> None:
        self._clip = clip
        self._batcher = batcher
        self._store = store
        self._cache = cache
        self._metrics = metrics

    async def embed_texts(
        self,
        texts: Sequence[str],
        *,
        context: RequestContext,
        timeout_s: float | None,
        keep: bool = True,
    ) -> list[OrError[Vector]]:
        """The embedding of each text, or why there is none, in order.

        Args:
            texts: The same text is computed once.
            context: Who asks.
            timeout_s: Time left, seconds.
            keep: Remember the results; not worth it for what is read once.

        Raises:
            Overloaded, RequestTooLarge, Unavailable: As `DynamicBatcher.submit`.
        """
        found: dict[str, OrError[Vector]] = {}
        for text in texts:
            if (vector := self._cache.get(f"text:{text}")) is not None:
                found[text] = vector
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        self._metrics.cached.inc(len(texts) - len(missing))
        items = await asyncio.to_thread(lambda: [self._clip.prepare_text(one) for one in missing])
        answers = await self._batcher.submit_good(
            lambda item: item.bucket, items, context=context, timeout_s=timeout_s
        )
        for text, answer in zip(missing, answers, strict=True):
            found[text] = answer
            if keep and not isinstance(answer, DndError):
                self._cache.put(f"text:{text}", answer)
        return [found[text] for text in texts]

    async def embed_images(
        self,
        images: Sequence[types_pb2.Image],
        show_at: int,
        *,
        context: RequestContext,
        timeout_s: float | None,
        keep: bool = True,
    ) -> list[OrError[Vector]]:
        """The embedding of each image, or why there is none, in order.

        While one chunk is on the device, the next is read and prepared.

        Args:
            images: References or bytes; the same picture is computed once.
            show_at: Side to which images are shrunk first, pixels; 0 for as they are.
            context: Who asks.
            timeout_s: Time left, seconds.
            keep: Remember the results; not worth it for what is read once.

        Raises:
            Overloaded, RequestTooLarge, Unavailable: As `DynamicBatcher.submit`.
        """
        loop = asyncio.get_running_loop()
        until = None if timeout_s is None else loop.time() + timeout_s
        keys = [f"{show_at}:{_name(image)}" for image in images]
        by_key = dict(zip(keys, images, strict=True))
        found: dict[str, OrError[Vector]] = {}
        for key in by_key:
            if (vector := self._cache.get(key)) is not None:
                found[key] = vector
        missing = [key for key in by_key if key not in found]
        self._metrics.cached.inc(len(images) - len(missing))
        running: asyncio.Task[None] | None = None

        async def compute(chunk: list[str], items: list[OrError[Prepared]]) -> None:
            left = None if until is None else until - loop.time()
            answers = await self._batcher.submit_good(
                lambda item: item.bucket, items, context=context, timeout_s=left
            )
            for key, answer in zip(chunk, answers, strict=True):
                found[key] = answer
                if keep and not isinstance(answer, DndError):
                    self._cache.put(key, answer)

        try:
            for chunk in chunks(missing, CHUNK):
                items = await prepare_images(
                    [by_key[key] for key in chunk],
                    self._store,
                    lambda image: self._clip.prepare_image(image, show_at),
                )
                if running is not None:
                    await running
                running = asyncio.create_task(compute(chunk, items))
            if running is not None:
                await running
        finally:
            if running is not None:
                running.cancel()
        return [found[key] for key in keys]


def _name(image: types_pb2.Image) -> str:
    """What a picture is remembered under: its reference, which is also the digest of its bytes."""
    if image.HasField("data"):
        return "sha256:" + hashlib.sha256(image.data).hexdigest()
    return image.ref
