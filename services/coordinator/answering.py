"""What the parts of the servicer share: the record, the services, and threads to wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import grpc
from sqlalchemy.orm import Session

from dnd.clients import Services
from dnd.serving.inputs import request_context
from dnd.telemetry import carried
from dnd.types import RequestContext
from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator import views
from dnd_services.coordinator.dispatcher import SILENT_BEATS
from dnd_services.coordinator.models import JobRow
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.store import Store, jobs, reading

T = TypeVar("T")
# None where REST or a page asks; no method needs it.
GrpcContext: TypeAlias = "grpc.aio.ServicerContext[Any, Any] | None"


class Answering:
    """Answers from the record; everything that blocks runs in threads.

    Args:
        nudge: Called, in a thread, when the dispatcher may have something new to do.
    """

    def __init__(
        self,
        store: Store,
        services: Services,
        settings: CoordinatorSettings,
        nudge: Callable[[], None],
    ) -> None:
        self._store = store
        self._services = services
        self._settings = settings
        self._nudge = nudge
        # Callers that wait for a slow stage service must not keep others from the record.
        self._askers = ThreadPoolExecutor(16, thread_name_prefix="ask")
        self._lookers = ThreadPoolExecutor(8, thread_name_prefix="look")

    def close(self) -> None:
        """Ends the threads."""
        self._askers.shutdown(cancel_futures=True)
        self._lookers.shutdown(cancel_futures=True)

    @property
    def store(self) -> Store:
        """The record, for the pages of the explorer."""
        return self._store

    @property
    def services(self) -> Services:
        """The stage services and the artifact store, for the pages of the explorer."""
        return self._services

    def job_messages(self, session: Session, rows: Sequence[JobRow]) -> list[pb2.Job]:
        """Jobs and how far they are."""
        now = self._store.now(session)
        progress = reading.read_progress(session, rows, now, self._silent_s)
        return list(map(views.job_message, rows, progress))

    async def _ask(self, function: Callable[..., T], *args: Any) -> T:
        """Runs what waits for stage services."""
        return await asyncio.get_running_loop().run_in_executor(
            self._askers, carried(function), *args
        )

    async def _look(self, function: Callable[[], T]) -> T:
        """Runs what waits for the record or the artifact store only."""
        return await asyncio.get_running_loop().run_in_executor(self._lookers, carried(function))

    @property
    def _silent_s(self) -> float:
        return SILENT_BEATS * self._settings.heartbeat_s

    async def _read(self, function: Callable[[Session], T]) -> T:
        def run() -> T:
            with self._store.reading() as session:
                return function(session)

        return await self._look(run)

    async def _find(self, asked: RequestContext, job_id: str) -> pb2.Job:
        return await self._read(
            lambda session: self._message(session, jobs.find_job(session, asked.tenant, job_id))
        )

    async def _job(self, job: JobRow) -> pb2.Job:
        return await self._read(
            lambda session: self._message(session, session.get_one(JobRow, job.id))
        )

    def _message(self, session: Session, job: JobRow) -> pb2.Job:
        (message,) = self.job_messages(session, [job])
        return message

    async def _change(
        self, request: Any, function: Callable[[Session, JobRow, float], None]
    ) -> pb2.Job:
        asked = request_context(request)

        def run() -> pb2.Job:
            with self._store.writing(is_urgent=True) as session:
                job = jobs.find_job(session, asked.tenant, request.job_id, lock=True)
                function(session, job, self._store.now(session))
                session.flush()
                message = self._message(session, job)
            self._nudge()
            return message

        return await self._look(run)
