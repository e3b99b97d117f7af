"""The servicer of dnd.v1.CoordinatorService: validates, converts; the record decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from sqlalchemy.orm import Session

from dnd import telemetry
from dnd.clients import SERVICE_NAMES, Services
from dnd.concept_sets import clean_concepts
from dnd.convert import to_message
from dnd.dissection import save_concepts
from dnd.errors import InvalidInput
from dnd.jobs import limits_from_message
from dnd.profiles import PROFILES
from dnd.serving.inputs import check_count, request_context
from dnd.types import Priority, RequestContext
from dnd.v1 import activations_pb2, coordinator_pb2_grpc
from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator import frozen
from dnd_services.coordinator.answering import GrpcContext
from dnd_services.coordinator.budgets import Budgets, Price
from dnd_services.coordinator.models import JobRow
from dnd_services.coordinator.operator_methods import OperatorMethods
from dnd_services.coordinator.paging import (
    hash_spec,
    make_token,
    page_size,
    read_spec,
    read_token,
    read_watch_token,
    watch_token,
)
from dnd_services.coordinator.planning import PlannedJob, Planner, estimate
from dnd_services.coordinator.result_methods import ResultMethods
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.store import Store, concept_sets, deleting, jobs
from dnd_services.coordinator.store.health import read_times
from dnd_services.coordinator.store.leases import read_capacity
from dnd_services.coordinator.store.spending import price_of
from dnd_services.coordinator.trial_methods import TrialMethods

_WATCH_EVERY_S = 0.25


class CoordinatorServicer(
    ResultMethods, TrialMethods, OperatorMethods, coordinator_pb2_grpc.CoordinatorServiceServicer
):
    """Answers callers from the record. Who may ask is settled before (`access.py`).

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
        super().__init__(store, services, settings, nudge)
        self._budgets = budgets
        self._planner = Planner(
            services, settings.freeze_s, self._last_digests if settings.scale_to_zero else None
        )

    def _last_digests(self) -> Mapping[str, str]:
        with self._store.reading() as session:
            return jobs.last_digests(session)

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
        await self._look(lambda: concept_sets.check(self._store, asked.tenant, spec.concept_set))
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
        asked = request_context(request)
        check_count("characters in its name", len(request.name), 1, 256)

        def keep() -> pb2.CreateConceptSetResponse:
            cleaned = clean_concepts(request.text, request.name)
            ref = save_concepts(self._services.artifacts, cleaned.concepts)
            concept_sets.keep(self._store, asked.tenant, ref)
            return pb2.CreateConceptSetResponse(
                concept_set=ref,
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
        concept_sets.check(self._store, asked.tenant, spec.concept_set)
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
            trace=telemetry.traceparent(),
        )
        job = jobs.create_job(self._store, new)
        telemetry.annotate({"dnd.job": job.id})
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
                jobs=self.job_messages(session, found[:size]),
                next_page_token=make_token("jobs", found[size - 1].id) if more else "",
            )

        return await self._read(page)

    async def WatchJob(
        self, request: pb2.WatchJobRequest, context: GrpcContext
    ) -> AsyncIterator[pb2.WatchJobResponse]:
        asked = request_context(request)
        job_id, shown = request.job_id, request.resume_token
        if shown:
            job_id = read_watch_token(shown, job_id)
        while True:
            job = await self._find(asked, job_id)
            token = watch_token(job)
            if token != shown:
                yield pb2.WatchJobResponse(job=job, resume_token=token)
                shown = token
            if job.state not in (pb2.JOB_STATE_RUNNING, pb2.JOB_STATE_PAUSED):
                return
            job_id = job.id  # an empty id stood for the newest job when the call began
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
