"""Dynamic batching: requests of many callers share one pass of the device.

Everything that waits is taken at once. An idle device waits a few milliseconds for more, a busy one
never does. One thread owns the device. An exception is bisected down to the item that causes it, so
that every other caller gets its answer (ENGINEERING, "Dynamic batching"). What waits for a caller
that has gone is dropped; a batch on the device may stop once all of its callers have.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from dnd import telemetry
from dnd.errors import (
    Cancelled,
    DeadlineExceeded,
    DndError,
    Internal,
    Overloaded,
    RequestTooLarge,
    Systemic,
    Unavailable,
)
from dnd.serving.metrics import Metrics
from dnd.types import OrError, Priority, RequestContext

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")

AGEING_S = 2.0
"""Batch work that has waited this long goes with interactive work, so that it never starves."""


@dataclass
class _Entry(Generic[K, I, O]):
    bucket: K
    item: I
    future: asyncio.Future[OrError[O]]
    arrived: float
    expires: float | None
    interactive: bool
    context: Context


class DynamicBatcher(Generic[K, I, O]):
    """Collects items into batches of one bucket and runs them in one device thread.

    Args:
        run: Computes the results of some items of one bucket, in order. Runs in the device thread.
        max_batch: Items of one call of `run` at most.
        max_queue: Items admitted and unanswered at most.
        max_wait_ms: How long an idle device waits for a fuller batch, milliseconds.
        metrics: Where batch sizes and waits are recorded.
    """

    def __init__(
        self,
        run: Callable[[K, Sequence[I]], Sequence[OrError[O]]],
        *,
        max_batch: int,
        max_queue: int,
        max_wait_ms: float,
        metrics: Metrics,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._max_wait_s = max_wait_ms / 1000
        self._metrics = metrics
        self._entries: list[_Entry[K, I, O]] = []
        self._on_device: Sequence[_Entry[K, I, O]] = ()
        self._arrival = asyncio.Event()
        self._device = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._loop_task: asyncio.Task[None] | None = None
        self._num_admitted = 0
        self._closed = False
        self._seconds_per_item = 0.0

    async def submit(
        self,
        bucket: K,
        items: Sequence[I],
        *,
        context: RequestContext | None = None,
        timeout_s: float | None = None,
    ) -> list[OrError[O]]:
        """The result, or the error, of each item, in order.

        Items of a caller that goes away, or whose time is over, are dropped before the device.

        Raises:
            RequestTooLarge: More items than the queue can ever take.
            Overloaded: The queue is full now; carries `retry_after_s`.
            Unavailable: The server is shutting down.
        """
        return await self._submit([(bucket, item) for item in items], context, timeout_s)

    async def submit_good(
        self,
        bucket_of: Callable[[I], K],
        items: Sequence[OrError[I]],
        *,
        context: RequestContext | None = None,
        timeout_s: float | None = None,
    ) -> list[OrError[O]]:
        """`submit` for prepared inputs: a bucket for each, and errors stay where they are.

        Raises:
            RequestTooLarge, Overloaded, Unavailable: As `submit`.
        """
        pairs = [(bucket_of(item), item) for item in items if not isinstance(item, DndError)]
        results = iter(await self._submit(pairs, context, timeout_s))
        return [item if isinstance(item, DndError) else next(results) for item in items]

    async def _submit(
        self,
        pairs: Sequence[tuple[K, I]],
        context: RequestContext | None,
        timeout_s: float | None,
    ) -> list[OrError[O]]:
        if not pairs:
            return []
        self._admit(len(pairs))
        loop = asyncio.get_running_loop()
        now = loop.time()
        interactive = context is not None and context.priority is Priority.INTERACTIVE
        caller = copy_context()
        entries = [
            _Entry[K, I, O](
                bucket,
                item,
                loop.create_future(),
                now,
                None if timeout_s is None else now + timeout_s,
                interactive,
                caller,
            )
            for bucket, item in pairs
        ]
        self._entries.extend(entries)
        if self._loop_task is None:
            self._loop_task = loop.create_task(self._serve())
        self._arrival.set()
        try:
            with telemetry.span("wait and compute", attributes={"dnd.num_items": len(entries)}):
                return list(await asyncio.gather(*(entry.future for entry in entries)))
        finally:
            for entry in entries:
                entry.future.cancel()
            self._num_admitted -= len(entries)
            self._metrics.queued.set(self._num_admitted)

    def is_abandoned(self) -> bool:
        """Whether every caller of the batch on the device has gone.

        `run` may ask it between its steps, and raise Cancelled.
        """
        batch = self._on_device
        return bool(batch) and all(entry.future.cancelled() for entry in batch)

    async def run_alone(self, function: Callable[[], T]) -> T:
        """Runs `function` in the device thread, between batches."""
        return await asyncio.get_running_loop().run_in_executor(self._device, self._time, function)

    async def close(self) -> None:
        """Refuses new items, answers waiting ones with Unavailable, and ends the device thread."""
        self._closed = True
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        for entry in self._entries:
            if not entry.future.done():
                entry.future.set_result(Unavailable("The server is shutting down."))
        self._entries.clear()
        await asyncio.to_thread(self._device.shutdown, wait=True)

    def _admit(self, num_items: int) -> None:
        if self._closed:
            raise Unavailable("The server is shutting down.")
        if num_items > self._max_queue:
            raise RequestTooLarge(
                f"The request has {num_items} items: this server admits at most {self._max_queue}."
            )
        if self._num_admitted + num_items > self._max_queue:
            self._metrics.refused.inc(num_items)
            wait_s = max(0.1, self._seconds_per_item * self._num_admitted)
            raise Overloaded(
                f"{self._num_admitted} items are waiting: try again in {wait_s:.1f} s.",
                retry_after_s=min(wait_s, 30.0),
            )
        self._num_admitted += num_items
        self._metrics.queued.set(self._num_admitted)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._entries:
                self._arrival.clear()
                await self._arrival.wait()
            await self._wait_for_more(loop)
            batch = self._take(loop.time())
            if not batch:
                continue
            started = loop.time()
            for entry in batch:
                self._metrics.wait_seconds.observe(started - entry.arrived)
            self._on_device = batch
            try:
                compute = partial(self._compute, batch[0].bucket, batch)
                results = await loop.run_in_executor(self._device, self._time, compute)
            except asyncio.CancelledError:
                self._answer(batch, [Unavailable("The server is shutting down.")] * len(batch))
                raise
            finally:
                self._on_device = ()
            per_item = (loop.time() - started) / len(batch)
            self._seconds_per_item = 0.8 * self._seconds_per_item + 0.2 * per_item
            self._answer(batch, results)

    async def _wait_for_more(self, loop: asyncio.AbstractEventLoop) -> None:
        """The device is idle here: waits for a full batch, but only for a moment."""
        until = loop.time() + self._max_wait_s
        while len(self._entries) < self._max_batch and (left := until - loop.time()) > 0:
            self._arrival.clear()
            try:
                await asyncio.wait_for(self._arrival.wait(), left)
            except TimeoutError:
                return

    def _take(self, now: float) -> list[_Entry[K, I, O]]:
        """The next batch: of the bucket of the most urgent item, most urgent first."""
        waiting = []
        for entry in self._entries:
            if entry.future.done():
                continue
            if entry.expires is not None and entry.expires <= now:
                entry.future.set_result(
                    DeadlineExceeded("The caller's time was over in the queue.")
                )
                continue
            waiting.append(entry)
        waiting.sort(key=lambda e: (not (e.interactive or now - e.arrived > AGEING_S), e.arrived))
        batch = [e for e in waiting if e.bucket == waiting[0].bucket][: self._max_batch]
        taken = set(map(id, batch))
        self._entries = [entry for entry in waiting if id(entry) not in taken]
        return batch

    def _answer(self, batch: Sequence[_Entry[K, I, O]], results: Sequence[OrError[O]]) -> None:
        for entry, result in zip(batch, results, strict=True):
            if not entry.future.done():
                entry.future.set_result(result)

    def _time(self, function: Callable[[], T]) -> T:
        """In the device thread: runs `function`, and counts how long the thread was at it."""
        started = time.perf_counter()
        try:
            return function()
        finally:
            self._metrics.device_seconds.inc(time.perf_counter() - started)

    def _compute(self, bucket: K, batch: Sequence[_Entry[K, I, O]]) -> list[OrError[O]]:
        """In the device thread: one pass, halved again and again where it fails."""
        started = time.perf_counter()
        items = [entry.item for entry in batch]
        try:
            results = list(self._run(bucket, items))
            if len(results) != len(items):
                raise Internal(f"{len(items)} items gave {len(results)} results.")
        except (Systemic, Cancelled) as error:
            return [error] * len(items)
        except Exception as error:
            if len(items) == 1:
                if isinstance(error, DndError):
                    return [error]
                # The line names the job that the item is of.
                batch[0].context.copy().run(log.exception, "an item failed in the device thread")
                return [Internal(f"{type(error).__name__}: {error}"[:500])]
            half = len(items) // 2
            return self._compute(bucket, batch[:half]) + self._compute(bucket, batch[half:])
        self._metrics.batch_items.observe(len(items))
        self._metrics.items.inc(len(items))
        self._metrics.batch_seconds.observe(time.perf_counter() - started)
        return results


def pad_items(items: Sequence[I], size: int) -> list[I]:
    """`items` filled up to `size` with the last one: a batch of one fixed shape."""
    return [*items, *[items[-1]] * (size - len(items))]
