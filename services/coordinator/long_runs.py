"""What takes long, such as an evaluation: it runs once, and whoever asks the same watches it.

It goes on when its caller has gone, so that the next one finds it further along or done.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from dnd.errors import Unavailable
from dnd.jobs import EvaluationProgress
from dnd.telemetry import carried
from dnd_services.coordinator.judging import Watcher

_LOOK_EVERY_S = 0.25
_AT_ONCE = 2

T = TypeVar("T")


class _Run(Generic[T]):
    """One of them: how far it is, and what comes out."""

    def __init__(self, closing: threading.Event) -> None:
        self.progress: EvaluationProgress | None = None
        self.future: Future[T] | None = None
        self._closing = closing

    def watch(self, step: str, num_done: int, num_total: int) -> None:
        """Takes down how far it is.

        Raises:
            Unavailable: The process shuts down.
        """
        if self._closing.is_set():
            raise Unavailable("The coordinator is shutting down: ask again when it is back.")
        self.progress = EvaluationProgress(step, num_done, num_total)


class LongRuns(Generic[T]):
    """Runs what takes long in threads, two at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="long")
        self._runs: dict[Hashable, _Run[T]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def close(self) -> None:
        """Starts nothing more; what runs gives up at its next step."""
        self._closing.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def follow(
        self, key: Hashable, function: Callable[[Watcher], T]
    ) -> AsyncIterator[EvaluationProgress | T]:
        """Progress as it changes, then the result.

        Args:
            key: Equal for equal questions.
            function: Computes it; called once for all who ask at the same time.
        """
        run = self._start(key, function)
        assert run.future is not None
        shown: EvaluationProgress | None = None
        while not run.future.done():
            if run.progress is not None and run.progress != shown:
                shown = run.progress
                yield shown
            await asyncio.sleep(_LOOK_EVERY_S)
        yield run.future.result()

    def _start(self, key: Hashable, function: Callable[[Watcher], T]) -> _Run[T]:
        with self._lock:
            if key in self._runs:
                return self._runs[key]
            run = self._runs[key] = _Run[T](self._closing)
            run.future = self._pool.submit(carried(function), run.watch)
        run.future.add_done_callback(lambda _: self._runs.pop(key, None))
        return run
