"""The SDK for programs that run an event loop: `Client`, whose calls wait in threads.

    async with dnd.AsyncClient("127.0.0.1:7000") as client:
        job = await client.create_job(spec)
        async for job in client.watch(job.id):
            print(job.num_ended, "of", job.num_units)

Errors, retries and deadlines are those of `Client`, and so is what each method means. Methods for
operators (tokens, garbage) are there alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from dnd.client import Client
from dnd.evaluation import ImportedLabel
from dnd.jobs import (
    ConceptSet,
    Estimate,
    EvaluationSettings,
    Job,
    JobSpec,
    LabelHit,
    Limits,
    Targets,
    UnitResult,
    UnitState,
)
from dnd.trials import ExcitedUnit, TriedWords
from dnd.types import LayerInfo

MAX_CALLS = 32
"""Calls of one client at the same time; watches and iterations count while they wait."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class AsyncExport:
    """A job and all its units, as they were at one moment; units can be read once."""

    job: Job
    units: AsyncIterator[UnitResult]


class AsyncClient:
    """A connection to a coordinator; arguments are those of `Client`."""

    def __init__(self, server: str, **options: Any) -> None:
        self._client = Client(server, **options)
        self._threads = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="dnd-client")

    async def close(self) -> None:
        """Closes the connection; calls under way fail."""
        self._client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def targets(self) -> Targets:
        """As `Client.targets`."""
        return await self._run(self._client.targets)

    async def layers(self, model: str) -> tuple[LayerInfo, ...]:
        """As `Client.layers`."""
        return await self._run(self._client.layers, model)

    async def estimate(self, spec: JobSpec) -> Estimate:
        """As `Client.estimate`."""
        return await self._run(self._client.estimate, spec)

    async def create_concept_set(self, name: str, text: str) -> ConceptSet:
        """As `Client.create_concept_set`."""
        return await self._run(self._client.create_concept_set, name, text)

    async def create_job(self, spec: JobSpec, request_id: str | None = None) -> Job:
        """As `Client.create_job`."""
        return await self._run(self._client.create_job, spec, request_id)

    async def get_job(self, job_id: str = "") -> Job:
        """As `Client.get_job`."""
        return await self._run(self._client.get_job, job_id)

    def list_jobs(self, page_size: int = 100) -> AsyncIterator[Job]:
        """As `Client.list_jobs`."""
        return self._iterate(self._client.list_jobs(page_size))

    def watch(self, job_id: str) -> AsyncIterator[Job]:
        """As `Client.watch`."""
        return self._iterate(self._client.watch(job_id))

    async def pause_job(self, job_id: str) -> Job:
        """As `Client.pause_job`."""
        return await self._run(self._client.pause_job, job_id)

    async def resume_job(self, job_id: str, limits: Limits | None = None) -> Job:
        """As `Client.resume_job`."""
        return await self._run(self._client.resume_job, job_id, limits)

    async def cancel_job(self, job_id: str) -> Job:
        """As `Client.cancel_job`."""
        return await self._run(self._client.cancel_job, job_id)

    async def retry_job(self, job_id: str) -> Job:
        """As `Client.retry_job`."""
        return await self._run(self._client.retry_job, job_id)

    async def delete_job(self, job_id: str) -> None:
        """As `Client.delete_job`."""
        await self._run(self._client.delete_job, job_id)

    async def unit(self, job_id: str, layer: str, unit: int) -> UnitResult:
        """As `Client.unit`."""
        return await self._run(self._client.unit, job_id, layer, unit)

    def labels(
        self,
        job_id: str,
        *,
        layer: str = "",
        state: UnitState | None = None,
        min_percentile: float | None = None,
        max_percentile: float | None = None,
        label_text: str = "",
        with_records: bool = True,
        page_size: int = 100,
    ) -> AsyncIterator[UnitResult]:
        """As `Client.labels`."""
        return self._iterate(
            self._client.labels(
                job_id,
                layer=layer,
                state=state,
                min_percentile=min_percentile,
                max_percentile=max_percentile,
                label_text=label_text,
                with_records=with_records,
                page_size=page_size,
            )
        )

    async def export(self, job_id: str = "") -> AsyncExport:
        """As `Client.export`."""
        found = await self._run(self._client.export, job_id)
        return AsyncExport(found.job, self._iterate(found.units))

    def search(
        self, text: str, *, by_meaning: bool = False, job_id: str = "", page_size: int = 100
    ) -> AsyncIterator[LabelHit]:
        """As `Client.search`."""
        found = self._client.search(text, by_meaning=by_meaning, job_id=job_id, page_size=page_size)
        return self._iterate(found)

    async def images(self, job_id: str, refs: Sequence[str], max_side: int = 0) -> list[bytes]:
        """As `Client.images`."""
        return await self._run(self._client.images, job_id, refs, max_side)

    async def evaluate(
        self,
        job_id: str = "",
        settings: EvaluationSettings | None = None,
        label_sets: Mapping[str, Sequence[ImportedLabel]] | None = None,
    ) -> dict[str, Any]:
        """As `Client.evaluate`."""
        return await self._run(self._client.evaluate, job_id, settings, label_sets)

    async def try_image(self, image: bytes, job_id: str = "") -> tuple[ExcitedUnit, ...]:
        """As `Client.try_image`."""
        return await self._run(self._client.try_image, image, job_id)

    async def try_words(self, words: str, layer: str, unit: int, job_id: str = "") -> TriedWords:
        """As `Client.try_words`."""
        return await self._run(self._client.try_words, words, layer, unit, job_id)

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))

    async def _iterate(self, items: Iterator[T]) -> AsyncIterator[T]:
        """The items one by one. Whoever stops early ends the call behind them."""
        end = object()
        try:
            while (item := await self._run(next, items, end)) is not end:
                yield item  # type: ignore[misc]
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                self._threads.submit(close)
