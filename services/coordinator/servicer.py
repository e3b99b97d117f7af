"""The servicer of dnd.v1.CoordinatorService: validates, converts; the record decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import grpc
from sqlalchemy.orm import Session

from dnd.clients import SERVICE_NAMES, Services
from dnd.concept_sets import clean_concepts
from dnd.convert import enum_member, to_message
from dnd.dissection import save_concepts
from dnd.errors import InvalidInput, NotFound
from dnd.jobs import Garbage, UnitState, limits_from_message
from dnd.profiles import PROFILES
from dnd.serving.inputs import check_count, check_range, request_context
from dnd.types import Priority, RequestContext
from dnd.v1 import activations_pb2, coordinator_pb2_grpc
from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator import evaluating, frozen, garbage, views
from dnd_services.coordinator.budgets import Budgets, Price
from dnd_services.coordinator.dispatcher import SILENT_BEATS
from dnd_services.coordinator.judging import Watcher
from dnd_services.coordinator.long_runs import LongRuns
from dnd_services.coordinator.models import JobRow
from dnd_services.coordinator.paging import (
    hash_spec,
    make_token,
    page_size,
    read_question,
    read_spec,
    read_token,
)
from dnd_services.coordinator.planning import PlannedJob, Planner, estimate
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.store import Store, deleting, jobs, reading
from dnd_services.coordinator.store.health import read_times
from dnd_services.coordinator.store.leases import read_capacity
from dnd_services.coordinator.store.spending import price_of

_WATCH_EVERY_S = 0.25
_YEAR_S = 365 * 24 * 3600
_UNIT_STATE = pb2.DESCRIPTOR.enum_types_by_name["UnitState"]
_IMAGE_MARKS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")

T = TypeVar("T")
GrpcContext: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CoordinatorServicer(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """Answers callers from the record; everything that blocks runs in threads.

    Args:
        nudge: Called, in a thread, when the dispatcher may have something new to do.
        budgets: Prices, and quotas of tenants.
    """

    def __init__(
        self,
        store: Store,
        services: Services,
        settings: CoordinatorSettings,
        nudge: Callable[[], None],
        budgets: Budgets,
    ) -> None:
        self._store = store
        self._services = services
        self._settings = settings
        self._nudge = nudge
        self._budgets = budgets
        self._planner = Planner(
            services, settings.freeze_s, self._last_digests if settings.scale_to_zero else None
        )
        # Callers that wait for a slow stage service must not keep others from the record.
        self._askers = ThreadPoolExecutor(16, thread_name_prefix="ask")
        self._lookers = ThreadPoolExecutor(8, thread_name_prefix="look")
        self._evaluations = LongRuns[str]()
        self._collections = LongRuns[Garbage]()

    def _last_digests(self) -> Mapping[str, str]:
        with self._store.reading() as session:
            return jobs.last_digests(session)

    def close(self) -> None:
        """Ends the threads."""
        self._askers.shutdown(cancel_futures=True)
        self._lookers.shutdown(cancel_futures=True)
        self._evaluations.close()
        self._collections.close()

    @property
    def store(self) -> Store:
        """The record, for the pages of the explorer."""
        return self._store

    @property
    def services(self) -> Services:
        """The stage services and the artifact store, for the pages of the explorer."""
        return self._services

    def job_message(self, session: Session, job: JobRow) -> pb2.Job:
        """A job as GetJob answers it."""
        return self._message(session, job)

    async def ListTargets(
        self, request: pb2.ListTargetsRequest, context: GrpcContext
    ) -> pb2.ListTargetsResponse:
        models, probes = await self._ask(self._planner.list_models, request_context(request))
        return pb2.ListTargetsResponse(models=models, probes=probes, profiles=list(PROFILES))

    async def ListTargetLayers(
        self, request: pb2.ListTargetLayersRequest, context: GrpcContext
    ) -> pb2.ListTargetLayersResponse:
        asked = request_context(request)
        layers, _ = await self._ask(self._planner.list_layers, request.model, asked)
        return pb2.ListTargetLayersResponse(
            layers=[to_message(layer, activations_pb2.LayerInfo) for layer in layers]
        )

    async def EstimateJob(
        self, request: pb2.EstimateJobRequest, context: GrpcContext
    ) -> pb2.EstimateJobResponse:
        asked = request_context(request)
        spec = read_spec(request.spec)
        planned = await self._ask(self._planner.plan, spec, asked)
        price = await self._ask(self._price_of, planned, asked) if self._budgets.prices else None
        replicas = await self._ask(self._count_replicas)

        def predict(session: Session) -> pb2.EstimateJobResponse:
            capacity = read_capacity(session, self._store.now(session), self._silent_s)
            answer = estimate(planned, read_times(session), capacity, price, replicas)
            return to_message(answer, pb2.EstimateJobResponse)

        return await self._read(predict)

    async def CreateConceptSet(
        self, request: pb2.CreateConceptSetRequest, context: GrpcContext
    ) -> pb2.CreateConceptSetResponse:
        request_context(request)
        check_count("characters in its name", len(request.name), 1, 256)

        def keep() -> pb2.CreateConceptSetResponse:
            cleaned = clean_concepts(request.text, request.name)
            return pb2.CreateConceptSetResponse(
                concept_set=save_concepts(self._services.artifacts, cleaned.concepts),
                num_concepts=len(cleaned.concepts),
                num_blank=cleaned.num_blank,
                num_repeated=cleaned.num_repeated,
            )

        return await self._look(keep)

    async def CreateJob(
        self, request: pb2.CreateJobRequest, context: GrpcContext
    ) -> pb2.CreateJobResponse:
        check_count("characters in its request_id", len(request.request_id), 1, 64)
        job = await self._ask(self._create, request)
        return pb2.CreateJobResponse(job=await self._job(job))

    def _count_replicas(self) -> dict[str, int]:
        """Replicas of each stage service whose addresses are known now."""
        return {name: getattr(self._services, name).pool.num_replicas for name in SERVICE_NAMES}

    def _price_of(self, planned: PlannedJob, asked: RequestContext) -> Price | None:
        """The price of the language model that a job asks; None if it has none, or is away."""
        return self._budgets.prices.get(self._planner.find_llm(planned, asked))

    def _create(self, request: pb2.CreateJobRequest) -> JobRow:
        asked = request_context(request)
        body_hash = hash_spec(request.spec)
        with self._store.reading() as session:
            known = jobs.find_request(session, asked.tenant, request.request_id, body_hash)
        if known is not None:
            return known
        spec = read_spec(request.spec)
        planned = self._planner.plan(spec, asked)
        digests = self._planner.read_digests(planned, asked)
        price = self._price_of(planned, asked)
        if spec.limits.max_dollars and price is None:
            raise InvalidInput(
                f"limits.max_dollars = {spec.limits.max_dollars:g}, and the operator has named no "
                "price for the language model: limit the tokens instead."
            )
        shard_images = planned.profile.index.shard_images
        frozen_to = frozen.freeze(
            model=spec.model,
            layers=[layer.layer for layer in planned.layers],
            probe=spec.probe,
            probe_set=planned.probe_set,
            profile=planned.profile,
            seed=spec.seed,
            digests=digests,
            bank=planned.bank,
            method=spec.method,
            concept_set=spec.concept_set,
            concepts_ref=planned.concepts_ref,
            price=price,
        )
        new = jobs.NewJob(
            tenant=asked.tenant,
            request_id=request.request_id,
            body_hash=body_hash,
            spec=request.spec.SerializeToString(),
            profile=planned.profile.name,
            is_batch=spec.priority is Priority.BATCH,
            layers=planned.layers,
            num_shards=-(-planned.probe_set.num_images // shard_images),
            num_skipped_images=planned.probe_set.num_skipped,
            method=spec.method,
            limits=spec.limits,
            max_jobs=self._budgets.rules_of(asked.tenant).max_jobs,
            frozen=frozen_to,
            bank=frozen.bank_needs(
                asked.tenant, frozen.make_plan(frozen_to), shared=self._settings.share_drawings
            ),
        )
        job = jobs.create_job(self._store, new)
        self._nudge()
        return job

    async def GetJob(self, request: pb2.GetJobRequest, context: GrpcContext) -> pb2.GetJobResponse:
        return pb2.GetJobResponse(job=await self._find(request_context(request), request.job_id))

    async def ListJobs(
        self, request: pb2.ListJobsRequest, context: GrpcContext
    ) -> pb2.ListJobsResponse:
        asked = request_context(request)
        size = page_size(request.page_size)
        before = read_token(request.page_token, "jobs", str) if request.page_token else ""

        def page(session: Session) -> pb2.ListJobsResponse:
            found = jobs.list_jobs(session, asked.tenant, before, size + 1)
            more = len(found) > size
            return pb2.ListJobsResponse(
                jobs=[self._message(session, job) for job in found[:size]],
                next_page_token=make_token("jobs", found[size - 1].id) if more else "",
            )

        return await self._read(page)

    async def WatchJob(
        self, request: pb2.WatchJobRequest, context: GrpcContext
    ) -> AsyncIterator[pb2.WatchJobResponse]:
        asked = request_context(request)
        last: pb2.Job | None = None
        while True:
            job = await self._find(asked, request.job_id)
            if job != last:
                yield pb2.WatchJobResponse(job=job)
                last = job
            if job.state not in (pb2.JOB_STATE_RUNNING, pb2.JOB_STATE_PAUSED):
                return
            request.job_id = job.id  # an empty id stood for the newest job when the call began
            await asyncio.sleep(_WATCH_EVERY_S)

    async def PauseJob(
        self, request: pb2.PauseJobRequest, context: GrpcContext
    ) -> pb2.PauseJobResponse:
        job = await self._change(request, lambda session, row, now: jobs.pause_job(session, row))
        return pb2.PauseJobResponse(job=job)

    async def ResumeJob(
        self, request: pb2.ResumeJobRequest, context: GrpcContext
    ) -> pb2.ResumeJobResponse:
        limits = limits_from_message(request.limits)

        def resume(session: Session, row: JobRow, now: float) -> None:
            if limits.max_dollars and price_of(row) is None:
                raise InvalidInput("limits.max_dollars: the job's language model has no price.")
            jobs.resume_job(session, row, now, limits)

        return pb2.ResumeJobResponse(job=await self._change(request, resume))

    async def CancelJob(
        self, request: pb2.CancelJobRequest, context: GrpcContext
    ) -> pb2.CancelJobResponse:
        return pb2.CancelJobResponse(job=await self._change(request, jobs.cancel_job))

    async def RetryJob(
        self, request: pb2.RetryJobRequest, context: GrpcContext
    ) -> pb2.RetryJobResponse:
        return pb2.RetryJobResponse(job=await self._change(request, jobs.retry_job))

    async def DeleteJob(
        self, request: pb2.DeleteJobRequest, context: GrpcContext
    ) -> pb2.DeleteJobResponse:
        if not request.job_id:
            raise InvalidInput(
                "No job_id is given: a job is deleted by its id, never as the newest."
            )
        await self._change(request, deleting.delete_job)
        return pb2.DeleteJobResponse()

    async def CollectGarbage(
        self, request: pb2.CollectGarbageRequest, context: GrpcContext
    ) -> AsyncIterator[pb2.CollectGarbageResponse]:
        grace_s, remove = request.grace_s, request.remove
        check_range("grace_s", grace_s, 0, _YEAR_S)

        def collect(watch: Watcher) -> Garbage:
            artifacts = self._services.artifacts
            return garbage.collect(self._store, artifacts, grace_s, remove, watch)

        async for update in self._collections.follow((grace_s, remove), collect):
            if isinstance(update, Garbage):
                yield pb2.CollectGarbageResponse(garbage=to_message(update, pb2.Garbage))
            else:
                progress = pb2.GarbageProgress(step=update.step, num_done=update.num_done)
                yield pb2.CollectGarbageResponse(progress=progress)

    async def GetUnit(
        self, request: pb2.GetUnitRequest, context: GrpcContext
    ) -> pb2.GetUnitResponse:
        asked = request_context(request)

        def unit(session: Session) -> pb2.UnitResult:
            job = jobs.find_job(session, asked.tenant, request.job_id)
            view = reading.find_unit(session, job, request.layer, request.unit)
            return views.unit_message(job, view, self._services.artifacts, with_record=True)

        return pb2.GetUnitResponse(unit=await self._read(unit))

    async def ListLabels(
        self, request: pb2.ListLabelsRequest, context: GrpcContext
    ) -> pb2.ListLabelsResponse:
        asked = request_context(request)
        size = page_size(request.page_size)
        start = read_token(request.page_token, "units", int) if request.page_token else 0
        state = enum_member(request.state, _UNIT_STATE, UnitState) if request.state else None

        def page(session: Session) -> pb2.ListLabelsResponse:
            job = jobs.find_job(session, asked.tenant, request.job_id)
            found = reading.list_units(session, job, request.layer, state, start, size + 1)
            artifacts = self._services.artifacts
            return pb2.ListLabelsResponse(
                units=[
                    views.unit_message(job, view, artifacts, with_record=request.with_records)
                    for view in found[:size]
                ],
                next_page_token=(
                    make_token("units", found[size].ordinal) if len(found) > size else ""
                ),
            )

        return await self._read(page)

    async def GetImages(
        self, request: pb2.GetImagesRequest, context: GrpcContext
    ) -> pb2.GetImagesResponse:
        check_count("references", len(request.refs), 1, 64)
        await self._find(request_context(request), request.job_id)

        def images() -> list[bytes]:
            return [self._read_image(ref) for ref in request.refs]

        return pb2.GetImagesResponse(images=await self._look(images))

    async def EvaluateJob(
        self, request: pb2.EvaluateJobRequest, context: GrpcContext
    ) -> AsyncIterator[pb2.EvaluateJobResponse]:
        asked = request_context(request)
        question = read_question(request)

        def evaluate(watch: Watcher) -> str:
            return evaluating.answer(self._store, self._services, asked, question, watch)

        request.ClearField("context")  # who asks the same under another trace is shown the same
        key = (asked.tenant, request.SerializeToString(deterministic=True))
        async for update in self._evaluations.follow(key, evaluate):
            if isinstance(update, str):
                yield pb2.EvaluateJobResponse(evaluation_json=update)
            else:
                progress = to_message(update, pb2.EvaluationProgress)
                yield pb2.EvaluateJobResponse(progress=progress)

    def _read_image(self, ref: str) -> bytes:
        data = self._services.artifacts.get_bytes(ref)
        if not data.startswith(_IMAGE_MARKS):  # indexes and records lie in the same store
            raise NotFound(f"There is no image {ref}.")
        return data

    async def _ask(self, function: Callable[..., T], *args: Any) -> T:
        """Runs what waits for stage services."""
        return await asyncio.get_running_loop().run_in_executor(self._askers, function, *args)

    async def _look(self, function: Callable[[], T]) -> T:
        """Runs what waits for the record or the artifact store only."""
        return await asyncio.get_running_loop().run_in_executor(self._lookers, function)

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
        now = self._store.now(session)
        progress = reading.read_progress(session, job, now, self._silent_s)
        return views.job_message(job, progress)

    async def _change(
        self, request: Any, function: Callable[[Session, JobRow, float], None]
    ) -> pb2.Job:
        asked = request_context(request)

        def run() -> pb2.Job:
            with self._store.writing() as session:
                job = jobs.find_job(session, asked.tenant, request.job_id, lock=True)
                function(session, job, self._store.now(session))
                session.flush()
                message = self._message(session, job)
            self._nudge()
            return message

        return await self._look(run)
