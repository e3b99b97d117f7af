"""A coordinator without services, database or queue behind it: answers what a test has put in."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from PIL import Image
from result_samples import LAYERS, Sample

from dnd.concept_sets import clean_concepts
from dnd.convert import enum_value, to_message
from dnd.errors import (
    CODES,
    AlreadyExists,
    DndError,
    InvalidInput,
    NotFound,
    Unavailable,
    UnitOutOfRange,
    UnknownName,
    suggest,
)
from dnd.images import decode_image, encode_thumbnail
from dnd.jobs import (
    Estimate,
    Job,
    JobState,
    Limits,
    UnitResult,
    UnitState,
    limits_from_message,
    limits_to_message,
    spec_to_message,
)
from dnd.serving.interceptor import trailers_of
from dnd.v1 import activations_pb2, coordinator_pb2_grpc
from dnd.v1 import coordinator_pb2 as pb2

_JOB_STATE = pb2.DESCRIPTOR.enum_types_by_name["JobState"]
_UNIT_STATE = pb2.DESCRIPTOR.enum_types_by_name["UnitState"]


TILE = encode_thumbnail(Image.new("RGB", (8, 8), "teal"), 8)


class FakeCoordinator(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """Jobs are samples; a new job is the sample `on_create` under the id of its request.

    Attributes:
        samples: Jobs by id, oldest first.
        steps: What WatchJob answers before the job as it is.
        failures: Raised by the next calls, one each; a method name limits one to that method.
        calls: Names of the methods that were called.
        holding: While it is set, WatchJob answers nothing after `steps`.
        evaluation: What EvaluateJob answers after some progress.
    """

    def __init__(self, on_create: Sample | None = None) -> None:
        self.on_create = on_create
        self.samples: dict[str, Sample] = {}
        self.requests: dict[str, tuple[bytes, str]] = {}
        self.steps: list[Job] = []
        self.failures: list[tuple[str, DndError]] = []
        self.calls: list[str] = []
        self.estimate = Estimate(3, 100, 30, 15, 180, 12.0, 0)
        self.last_spec: pb2.JobSpec | None = None
        self.holding = threading.Event()
        self.evaluation: dict[str, Any] = {}
        self.last_question: pb2.EvaluateJobRequest | None = None
        self.last_limits = Limits()
        self.last_collection: pb2.CollectGarbageRequest | None = None
        self.last_search: pb2.SearchLabelsRequest | None = None
        self.last_words: pb2.TryWordsRequest | None = None
        self.tokens: dict[str, pb2.Token] = {}
        self.sent: list[str] = []
        self.resumed: list[str] = []
        self.breaks = 0

    def ListTargets(self, request: Any, context: Any) -> pb2.ListTargetsResponse:
        self._begin("ListTargets", context)
        return pb2.ListTargetsResponse(
            models=["small-net"], probes=["squares"], profiles=["default", "starter"]
        )

    def ListTargetLayers(self, request: Any, context: Any) -> pb2.ListTargetLayersResponse:
        self._begin("ListTargetLayers", context)
        if request.model != "small-net":
            _abort(context, UnknownName(suggest(request.model, ["small-net"], what="model")))
        return pb2.ListTargetLayersResponse(
            layers=[to_message(layer, activations_pb2.LayerInfo) for layer in LAYERS]
        )

    def EstimateJob(self, request: Any, context: Any) -> pb2.EstimateJobResponse:
        self._begin("EstimateJob", context)
        self.last_spec = request.spec
        if request.spec.model != "small-net":
            _abort(context, UnknownName(suggest(request.spec.model, ["small-net"], what="model")))
        known = {layer.path: layer.num_units for layer in LAYERS}
        for one in request.spec.layers:
            if one.layer not in known:
                _abort(
                    context,
                    UnknownName(suggest(one.layer, list(known), what="layer of the model named")),
                )
            if any(unit >= known[one.layer] for unit in one.units):
                num = known[one.layer]
                _abort(context, UnitOutOfRange(f"{one.layer} has units 0 to {num - 1}."))
        return to_message(self.estimate, pb2.EstimateJobResponse)

    def CreateConceptSet(self, request: Any, context: Any) -> pb2.CreateConceptSetResponse:
        self._begin("CreateConceptSet", context)
        try:
            found = clean_concepts(request.text, request.name)
        except DndError as error:
            _abort(context, error)
        return pb2.CreateConceptSetResponse(
            concept_set=f"sha256:{64 * '0'}",
            num_concepts=len(found.concepts),
            num_blank=found.num_blank,
            num_repeated=found.num_repeated,
        )

    def CreateJob(self, request: Any, context: Any) -> pb2.CreateJobResponse:
        self._begin("CreateJob", context)
        body = request.spec.SerializeToString(deterministic=True)
        if request.request_id in self.requests:
            known, job_id = self.requests[request.request_id]
            if known != body:
                _abort(context, AlreadyExists("Another job has this request id."))
            return pb2.CreateJobResponse(job=job_message(self.samples[job_id].job))
        assert self.on_create is not None
        self.last_spec = request.spec
        job_id = f"job-{len(self.samples) + 1}"
        sample = self.on_create
        self.samples[job_id] = Sample(replace(sample.job, id=job_id), sample.units, sample.images)
        self.requests[request.request_id] = (body, job_id)
        return pb2.CreateJobResponse(job=job_message(self.samples[job_id].job))

    def GetJob(self, request: Any, context: Any) -> pb2.GetJobResponse:
        self._begin("GetJob", context)
        return pb2.GetJobResponse(job=job_message(self._find(request.job_id, context).job))

    def ListJobs(self, request: Any, context: Any) -> pb2.ListJobsResponse:
        self._begin("ListJobs", context)
        newest_first = list(self.samples.values())[::-1]
        start, size = int(request.page_token or 0), request.page_size or 100
        more = start + size < len(newest_first)
        return pb2.ListJobsResponse(
            jobs=[job_message(one.job) for one in newest_first[start : start + size]],
            next_page_token=str(start + size) if more else "",
        )

    def WatchJob(self, request: Any, context: Any) -> Iterator[pb2.WatchJobResponse]:
        self._begin("WatchJob", context)
        sample = self._find(request.job_id, context)
        self.resumed.append(request.resume_token)
        while self.steps:
            yield pb2.WatchJobResponse(job=job_message(self.steps.pop(0)), resume_token="token")
        if self.breaks:
            self.breaks -= 1
            _abort(context, Unavailable("the connection is lost"))
        while self.holding.is_set() and context.is_active():
            time.sleep(0.02)
        yield pb2.WatchJobResponse(job=job_message(sample.job))

    def PauseJob(self, request: Any, context: Any) -> pb2.PauseJobResponse:
        return pb2.PauseJobResponse(job=self._change("PauseJob", JobState.PAUSED, request, context))

    def ResumeJob(self, request: Any, context: Any) -> pb2.ResumeJobResponse:
        self.last_limits = limits_from_message(request.limits)
        job = self._change("ResumeJob", JobState.RUNNING, request, context)
        return pb2.ResumeJobResponse(job=job)

    def CancelJob(self, request: Any, context: Any) -> pb2.CancelJobResponse:
        job = self._change("CancelJob", JobState.CANCELLED, request, context)
        return pb2.CancelJobResponse(job=job)

    def RetryJob(self, request: Any, context: Any) -> pb2.RetryJobResponse:
        return pb2.RetryJobResponse(
            job=self._change("RetryJob", JobState.RUNNING, request, context)
        )

    def DeleteJob(self, request: Any, context: Any) -> pb2.DeleteJobResponse:
        self._begin("DeleteJob", context)
        self._find(request.job_id, context)
        del self.samples[request.job_id]
        return pb2.DeleteJobResponse()

    def CollectGarbage(self, request: Any, context: Any) -> Iterator[pb2.CollectGarbageResponse]:
        self._begin("CollectGarbage", context)
        self.last_collection = request
        progress = pb2.GarbageProgress(step="mark", num_done=5000)
        yield pb2.CollectGarbageResponse(progress=progress)
        found = pb2.Garbage(
            num_artifacts=3, num_bytes=5_000_000, num_kept=7, removed=request.remove
        )
        yield pb2.CollectGarbageResponse(garbage=found)

    def GetUnit(self, request: Any, context: Any) -> pb2.GetUnitResponse:
        self._begin("GetUnit", context)
        for unit in self._find(request.job_id, context).units:
            if (unit.layer, unit.unit) == (request.layer, request.unit):
                return pb2.GetUnitResponse(unit=unit_message(unit, with_record=True))
        _abort(context, NotFound(f"The job has no unit {request.unit} of {request.layer}."))
        raise AssertionError

    def ListLabels(self, request: Any, context: Any) -> pb2.ListLabelsResponse:
        self._begin("ListLabels", context)
        units = [
            unit
            for unit in self._find(request.job_id, context).units
            if request.layer in ("", unit.layer)
            and request.state in (0, enum_value(unit.state, _UNIT_STATE))
        ]
        start, size = int(request.page_token or 0), request.page_size or 100
        return pb2.ListLabelsResponse(
            units=[unit_message(u, request.with_records) for u in units[start : start + size]],
            next_page_token=str(start + size) if start + size < len(units) else "",
        )

    def ExportLabels(self, request: Any, context: Any) -> Iterator[pb2.ExportLabelsResponse]:
        self._begin("ExportLabels", context)
        sample = self._find(request.job_id, context)
        yield pb2.ExportLabelsResponse(job=job_message(sample.job))
        for unit in sample.units:
            yield pb2.ExportLabelsResponse(unit=unit_message(unit, with_record=True))

    def SearchLabels(self, request: Any, context: Any) -> pb2.SearchLabelsResponse:
        self._begin("SearchLabels", context)
        self.last_search = request
        hits = [
            pb2.LabelHit(job_id=job_id, unit=unit_message(unit, False), label=label, score=0.5)
            for job_id, sample in self.samples.items()
            for unit in sample.units
            for label in unit.labels
            if request.text in label
        ]
        start, size = int(request.page_token or 0), request.page_size or 100
        more = str(start + size) if start + size < len(hits) else ""
        return pb2.SearchLabelsResponse(hits=hits[start : start + size], next_page_token=more)

    def CreateToken(self, request: Any, context: Any) -> pb2.CreateTokenResponse:
        self._begin("CreateToken", context)
        token = pb2.Token(
            id=f"t{len(self.tokens)}",
            name=request.name,
            tenant=request.tenant,
            role=request.role,
            created_at_s=1.8e9,
        )
        self.tokens[token.id] = token
        return pb2.CreateTokenResponse(token=token, secret="dnd_secret")

    def ListTokens(self, request: Any, context: Any) -> pb2.ListTokensResponse:
        self._begin("ListTokens", context)
        return pb2.ListTokensResponse(tokens=self.tokens.values())

    def RevokeToken(self, request: Any, context: Any) -> pb2.RevokeTokenResponse:
        self._begin("RevokeToken", context)
        if request.token_id not in self.tokens:
            _abort(context, NotFound(f"There is no token {request.token_id!r}."))
        self.tokens[request.token_id].revoked_at_s = 1.9e9
        return pb2.RevokeTokenResponse(token=self.tokens[request.token_id])

    def GetImages(self, request: Any, context: Any) -> pb2.GetImagesResponse:
        self._begin("GetImages", context)
        if not 1 <= len(request.refs) <= 64:
            _abort(context, InvalidInput("expected 1..64 references"))
        try:
            found = self._find(request.job_id, context).fetch(list(request.refs))
        except NotFound as error:
            _abort(context, error)
        return pb2.GetImagesResponse(images=found)

    def EvaluateJob(self, request: Any, context: Any) -> Iterator[pb2.EvaluateJobResponse]:
        self._begin("EvaluateJob", context)
        self._find(request.job_id, context)
        self.last_question = request
        for num_done in range(2):
            progress = pb2.EvaluationProgress(step="embed", num_done=num_done, num_total=2)
            yield pb2.EvaluateJobResponse(progress=progress)
        yield pb2.EvaluateJobResponse(evaluation_json=json.dumps(self.evaluation))

    def TryImage(self, request: Any, context: Any) -> pb2.TryImageResponse:
        self._begin("TryImage", context)
        try:
            decode_image(request.image)
        except DndError as error:
            _abort(context, error)
        units = [
            pb2.ExcitedUnit(
                layer=unit.layer,
                unit=unit.unit,
                label=unit.labels[0],
                activation=3.5,
                share=0.99,
                weakest_exemplar=3,
                strongest_exemplar=5,
                exemplar_level=0.75,
                map=TILE,
            )
            for unit in self._find(request.job_id, context).units
            if unit.labels
        ]
        bare = pb2.ExcitedUnit(
            layer="layer", unit=77, label="bare", activation=1, share=1, map=TILE
        )
        return pb2.TryImageResponse(units=[*units, bare] if units else [])

    def TryWords(self, request: Any, context: Any) -> pb2.TryWordsResponse:
        self._begin("TryWords", context)
        self._find(request.job_id, context)
        self.last_words = request
        return pb2.TryWordsResponse(
            words=request.words,
            drawings=[pb2.MeasuredImage(image=TILE, activation=3 - n) for n in range(3)],
            exemplars=[pb2.MeasuredImage(image=TILE, activation=2.5 - n) for n in range(2)],
            num_above=2,
        )

    def _begin(self, method: str, context: Any) -> None:
        self.calls.append(method)
        self.sent.append(dict(context.invocation_metadata()).get("authorization", ""))
        if self.failures and self.failures[0][0] in ("", method):
            _abort(context, self.failures.pop(0)[1])

    def _find(self, job_id: str, context: Any) -> Sample:
        if not job_id and self.samples:
            return list(self.samples.values())[-1]
        if job_id not in self.samples:
            _abort(context, NotFound(f"There is no job {job_id!r}."))
        return self.samples[job_id]

    def _change(self, method: str, state: JobState, request: Any, context: Any) -> pb2.Job:
        self._begin(method, context)
        sample = self._find(request.job_id, context)
        sample.job = replace(sample.job, state=state)
        return job_message(sample.job)


@contextmanager
def serve_fake(fake: FakeCoordinator, port: int = 0) -> Iterator[str]:
    """Serves a fake over gRPC on loopback, with health; its address."""
    server = grpc.server(ThreadPoolExecutor(8))
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(fake, server)
    checker = health.HealthServicer()
    checker.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    try:
        yield address
    finally:
        server.stop(0).wait()


def job_message(job: Job) -> pb2.Job:
    """The message of a job."""
    return pb2.Job(
        id=job.id,
        spec=spec_to_message(job.spec),
        state=enum_value(job.state, _JOB_STATE),
        pause_reason=job.pause_reason,
        error=job.error,
        num_units=job.num_units,
        units=[
            pb2.UnitCount(state=enum_value(state, _UNIT_STATE), num_units=num)
            for state, num in job.units.items()
        ],
        stages=[to_message(stage, pb2.StageCount) for stage in job.stages],
        created_at_s=job.created_at_s,
        ended_at_s=job.ended_at_s,
        profile_json=job.profile_json,
        digests=dict(job.digests),
        num_skipped_images=job.num_skipped_images,
        limits=limits_to_message(job.limits),
        used=to_message(job.used, pb2.Usage),
    )


def unit_message(unit: UnitResult, with_record: bool) -> pb2.UnitResult:
    """The message of a unit."""
    has_record = with_record and unit.record is not None and unit.state is not UnitState.PENDING
    return pb2.UnitResult(
        layer=unit.layer,
        unit=unit.unit,
        state=enum_value(unit.state, _UNIT_STATE),
        stage=unit.stage,
        labels=unit.labels,
        record_json=json.dumps(unit.record) if has_record else "",
        error=unit.error,
    )


def _abort(context: Any, error: DndError) -> None:
    context.set_trailing_metadata(trailers_of(error))
    context.abort(getattr(grpc.StatusCode, CODES[type(error)]), error.message)
