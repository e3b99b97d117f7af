"""Forward passes that requests share: pictures of many callers in a batch, one device thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, cast

import numpy as np

from dnd.errors import DndError, Unavailable
from dnd.profiles import Pooling
from dnd.serving import DynamicBatcher, Metrics
from dnd.settings import ModelServerSettings
from dnd.types import OrError, RequestContext
from dnd_services.activations.network import Network

T = TypeVar("T")

Rows: TypeAlias = tuple[np.ndarray, ...]
"""For each layer the activations (units,) float32 on one picture."""


@dataclass(frozen=True)
class Caller:
    """On whose behalf a pass runs.

    Attributes:
        context: Of the request.
        expires: When the caller has given up, in seconds of `time.monotonic`; None for never.
    """

    context: RequestContext = field(default_factory=RequestContext)
    expires: float | None = None

    @classmethod
    def until(cls, context: RequestContext, timeout_s: float | None) -> Caller:
        """A caller who waits `timeout_s` from now."""
        return cls(context, None if timeout_s is None else time.monotonic() + timeout_s)

    @property
    def remaining_s(self) -> float | None:
        return None if self.expires is None else max(0.0, self.expires - time.monotonic())


@dataclass(frozen=True)
class _Bucket:
    """What the pictures of one batch share; without a pooling, maps are read."""

    network: Network
    layers: tuple[str, ...]
    pooling: Pooling | None


@dataclass(frozen=True)
class _Item:
    """One prepared picture, and of which units the maps are wanted."""

    pixels: np.ndarray
    units: tuple[int, ...] = ()


class Passes:
    """Runs networks in the one device thread of the process.

    Args:
        settings: Batch and queue sizes.
        metrics: Where batches are counted.
    """

    def __init__(self, settings: ModelServerSettings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._batcher = DynamicBatcher[_Bucket, _Item, object](
            _run,
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            max_wait_ms=settings.max_wait_ms,
            metrics=metrics,
        )

    async def measure(
        self,
        caller: Caller,
        network: Network,
        layers: tuple[str, ...],
        pooling: Pooling,
        pictures: Sequence[np.ndarray],
    ) -> list[Rows]:
        """The activations of all units of `layers` on each prepared picture.

        Raises:
            DndError: Of the first picture that has no result.
        """
        items = [_Item(pixels) for pixels in pictures]
        answers = await self._submit(caller, _Bucket(network, layers, pooling), items)
        return [cast("Rows", answer) for answer in answers]

    async def read_maps(
        self, caller: Caller, network: Network, layer: str, pixels: np.ndarray, units: Sequence[int]
    ) -> np.ndarray | None:
        """Activation maps (units, height, width) on one picture; None without positions.

        Raises:
            DndError: The picture has no result.
        """
        item = _Item(pixels, tuple(units))
        (answer,) = await self._submit(caller, _Bucket(network, (layer,), None), [item])
        return cast("np.ndarray | None", answer)

    def count_known(self, num_pictures: int) -> None:
        """Counts pictures whose activations were known, so that no pass was needed."""
        self._metrics.cached.inc(num_pictures)

    async def run_alone(self, function: Callable[[], T], num_pictures: int = 0) -> T:
        """Runs `function` in the device thread, between batches.

        Args:
            num_pictures: Pictures that it computes, counted as a batch like any other.

        Raises:
            Unavailable: The server is shutting down.
        """
        started = time.perf_counter()
        try:
            result = await self._batcher.run_alone(function)
        except RuntimeError as error:
            if "shutdown" not in str(error):
                raise
            raise Unavailable("The server is shutting down.") from None
        if num_pictures:
            self._metrics.batch_items.observe(num_pictures)
            self._metrics.items.inc(num_pictures)
            self._metrics.batch_seconds.observe(time.perf_counter() - started)
        return result

    async def close(self) -> None:
        """Answers what waits with Unavailable, and ends the device thread."""
        await self._batcher.close()

    async def _submit(self, caller: Caller, bucket: _Bucket, items: list[_Item]) -> list[object]:
        answers = await self._batcher.submit(
            bucket, items, context=caller.context, timeout_s=caller.remaining_s
        )
        for answer in answers:
            if isinstance(answer, DndError):
                raise answer
        return list(answers)


def _run(bucket: _Bucket, items: Sequence[_Item]) -> Sequence[OrError[object]]:
    """One batch, in the device thread."""
    pixels = [item.pixels for item in items]
    if bucket.pooling is None:
        units = [item.units for item in items]
        return bucket.network.read_maps(pixels, bucket.layers[0], units)
    columns = [
        values.cpu().numpy()
        for values in bucket.network.measure(pixels, bucket.layers, bucket.pooling)
    ]
    return [tuple(values[row] for values in columns) for row in range(len(items))]
