"""The SDK: jobs in, labels out, from Python.

    with dnd.Client("127.0.0.1:7000") as client:
        spec = JobSpec("resnet50", (LayerUnits("layer4", (0, 1)),), "imagenet-val")
        job = client.create_job(spec)
        for job in client.watch(job.id):
            print(job.num_ended, "of", job.num_units)
        for unit in client.labels(job.id):
            print(unit.layer, unit.unit, unit.labels)

Calls that fail for a reason that may pass (`dnd.errors.Transient`) are repeated for a while;
creating a job is safe to repeat, since it carries a request id.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from dnd.chunks import chunks
from dnd.clients import DEADLINE_S
from dnd.connection import Connection
from dnd.convert import enum_value, from_message, to_message
from dnd.errors import InvalidInput
from dnd.evaluation import ImportedLabel
from dnd.jobs import (
    ConceptSet,
    Estimate,
    EvaluationProgress,
    EvaluationSettings,
    Export,
    Garbage,
    GarbageProgress,
    Job,
    JobSpec,
    JobState,
    LabelHit,
    LayerUnits,
    Limits,
    Method,
    StageCount,
    Targets,
    UnitResult,
    UnitState,
    Usage,
    job_from_message,
    limits_to_message,
    spec_to_message,
    unit_from_message,
    unit_state_number,
)
from dnd.tls import TlsFiles
from dnd.tokens import Role, Token
from dnd.trials import ExcitedUnit, MeasuredImage, TriedWords
from dnd.types import LayerInfo
from dnd.v1 import coordinator_pb2 as pb2

__all__ = [
    "Client",
    "ConceptSet",
    "Estimate",
    "EvaluationProgress",
    "EvaluationSettings",
    "ExcitedUnit",
    "Export",
    "Garbage",
    "GarbageProgress",
    "ImportedLabel",
    "Job",
    "JobSpec",
    "JobState",
    "LabelHit",
    "LayerInfo",
    "LayerUnits",
    "Limits",
    "MeasuredImage",
    "Method",
    "Role",
    "StageCount",
    "Targets",
    "Token",
    "TriedWords",
    "UnitResult",
    "UnitState",
    "Usage",
]

IMAGES_PER_CALL = 64
EXPORT_S = 400.0
"""Time for an export, seconds: servers end a connection that is older than 420 s."""
MAX_PAGE = 1000


class Client:
    """A connection to a coordinator.

    Args:
        server: "host:port", or "file:/path" of an endpoints file, which follows restarts.
        tenant: Owner of the jobs; empty for that of the token, or "default" where the server takes
            no tokens.
        token: Secret of a token, for servers that take them.
        deadline_s: Time for one call, seconds.
        retry_s: For how long a call is repeated whose failure may pass, seconds; 0 for not at all.
        tls: Certificates for a coordinator with mutual TLS; None for one without.
    """

    def __init__(
        self,
        server: str,
        *,
        tenant: str = "",
        token: str = "",
        deadline_s: float = DEADLINE_S,
        retry_s: float = 10.0,
        tls: TlsFiles | None = None,
    ) -> None:
        self.server = server
        self._rpc = Connection(
            server, tenant=tenant, token=token, deadline_s=deadline_s, retry_s=retry_s, tls=tls
        )

    def close(self) -> None:
        """Closes the connection."""
        self._rpc.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def targets(self) -> Targets:
        """Names of the models, probe sets and profiles on offer."""
        answer = self._rpc.ask("ListTargets", pb2.ListTargetsRequest(), pb2.ListTargetsResponse)
        return Targets(tuple(answer.models), tuple(answer.probes), tuple(answer.profiles))

    def layers(self, model: str) -> tuple[LayerInfo, ...]:
        """The layers of `model` that can be labelled, in module order.

        Raises:
            UnknownName: There is no such model.
        """
        request = pb2.ListTargetLayersRequest(model=model)
        answer = self._rpc.ask("ListTargetLayers", request, pb2.ListTargetLayersResponse)
        return tuple(from_message(layer, LayerInfo) for layer in answer.layers)

    def estimate(self, spec: JobSpec) -> Estimate:
        """What a job will cost, before anything runs.

        Raises:
            InvalidInput: The job could not be created either; one of its subclasses says why.
        """
        request = pb2.EstimateJobRequest(spec=spec_to_message(spec))
        return from_message(
            self._rpc.ask("EstimateJob", request, pb2.EstimateJobResponse), Estimate
        )

    def create_job(self, spec: JobSpec, request_id: str | None = None) -> Job:
        """Creates a job, once for each `request_id`.

        Raises:
            InvalidInput: A name, unit or setting is wrong; one of its subclasses says which.
            AlreadyExists: The request id belongs to a job with another specification.
        """
        request = pb2.CreateJobRequest(
            request_id=request_id or uuid.uuid4().hex, spec=spec_to_message(spec)
        )
        return job_from_message(self._rpc.ask("CreateJob", request, pb2.CreateJobResponse).job)

    def get_job(self, job_id: str = "") -> Job:
        """A job; the newest one for an empty id.

        Raises:
            NotFound: There is no such job.
        """
        request = pb2.GetJobRequest(job_id=job_id)
        return job_from_message(self._rpc.ask("GetJob", request, pb2.GetJobResponse).job)

    def create_concept_set(self, name: str, text: str) -> ConceptSet:
        """Keeps a list of concepts for jobs: its `concept_set` goes into their specifications.

        Args:
            name: What messages call it, such as the name of its file.
            text: One concept in each line; blank lines and repeats are left out.

        Raises:
            InvalidInput: It has no concept, or one that is too long.
        """
        request = pb2.CreateConceptSetRequest(name=name, text=text)
        return from_message(
            self._rpc.ask("CreateConceptSet", request, pb2.CreateConceptSetResponse), ConceptSet
        )

    def list_jobs(self, page_size: int = 100) -> Iterator[Job]:
        """All jobs, newest first, fetched in pages as they are read."""
        request = pb2.ListJobsRequest(page_size=_page(page_size))
        for page in self._rpc.pages("ListJobs", request, pb2.ListJobsResponse):
            yield from map(job_from_message, page.jobs)

    def watch(self, job_id: str) -> Iterator[Job]:
        """The job now and whenever it changes, until it has ended; reconnects by itself.

        Raises:
            NotFound: There is no such job.
            Unavailable: The server has been away for longer than `retry_s`.
        """
        request = pb2.WatchJobRequest(job_id=job_id)
        for response in self._rpc.follow("WatchJob", request):
            request.resume_token = response.resume_token
            job = job_from_message(response.job)
            yield job
            if job.state.ended:
                return

    def pause_job(self, job_id: str) -> Job:
        """No new work starts; what runs finishes and is kept."""
        request = pb2.PauseJobRequest(job_id=job_id)
        return job_from_message(self._rpc.ask("PauseJob", request, pb2.PauseJobResponse).job)

    def resume_job(self, job_id: str, limits: Limits | None = None) -> Job:
        """Goes on with a paused job.

        Args:
            limits: New limits; those that are 0 stay as they are.

        Raises:
            FailedPrecondition: It has ended, or a limit of it is still reached.
        """
        message = limits_to_message(limits or Limits())
        request = pb2.ResumeJobRequest(job_id=job_id, limits=message)
        return job_from_message(self._rpc.ask("ResumeJob", request, pb2.ResumeJobResponse).job)

    def cancel_job(self, job_id: str) -> Job:
        """Ends a job for good; labels that are done stay."""
        request = pb2.CancelJobRequest(job_id=job_id)
        return job_from_message(self._rpc.ask("CancelJob", request, pb2.CancelJobResponse).job)

    def retry_job(self, job_id: str) -> Job:
        """Runs the failed units of an ended job again."""
        request = pb2.RetryJobRequest(job_id=job_id)
        return job_from_message(self._rpc.ask("RetryJob", request, pb2.RetryJobResponse).job)

    def delete_job(self, job_id: str) -> None:
        """Removes an ended job; its artifacts go with `collect_garbage` unless others need them.

        Raises:
            NotFound: There is no such job.
            FailedPrecondition: It has not ended.
        """
        self._rpc.ask("DeleteJob", pb2.DeleteJobRequest(job_id=job_id), pb2.DeleteJobResponse)

    def collect_garbage(
        self,
        grace_s: float = 24 * 3600.0,
        *,
        remove: bool = False,
        on_progress: Callable[[GarbageProgress], None] = lambda progress: None,
    ) -> Garbage:
        """Finds the artifacts that no job of any tenant refers to, and removes them if told to.

        Args:
            grace_s: What was stored or used within this time is spared, seconds.
            on_progress: Called as it goes on.

        Raises:
            FailedPrecondition: The grace is shorter than an hour, and a job has not ended.
        """
        request = pb2.CollectGarbageRequest(grace_s=grace_s, remove=remove)
        for response in self._rpc.follow("CollectGarbage", request):
            if response.HasField("garbage"):
                return from_message(response.garbage, Garbage)
            on_progress(from_message(response.progress, GarbageProgress))
        raise AssertionError("the last message has what was found")

    def unit(self, job_id: str, layer: str, unit: int) -> UnitResult:
        """One unit with all evidence.

        Raises:
            NotFound: The job has no such unit.
        """
        request = pb2.GetUnitRequest(job_id=job_id, layer=layer, unit=unit)
        return unit_from_message(self._rpc.ask("GetUnit", request, pb2.GetUnitResponse).unit)

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
    ) -> Iterator[UnitResult]:
        """The units of a job in the job's order, fetched in pages as they are read.

        Args:
            layer: Only this layer.
            state: Only this state.
            min_percentile: Only units with at least this percentile, 0 to 1.
            max_percentile: Only units with at most this percentile, 0 to 1.
            label_text: Only units one of whose labels contains it, whatever the case.
            with_records: Answer the full records too.
            page_size: Units of one call.
        """
        request = pb2.ListLabelsRequest(
            job_id=job_id,
            layer=layer,
            state=unit_state_number(state),  # type: ignore[arg-type]
            page_size=_page(page_size),
            with_records=with_records,
            min_percentile=min_percentile,
            max_percentile=max_percentile,
            label_text=label_text,
        )
        for page in self._rpc.pages("ListLabels", request, pb2.ListLabelsResponse):
            yield from map(unit_from_message, page.units)

    def export(self, job_id: str = "") -> Export:
        """A job and all its units with all evidence, as they are at this moment.

        Units come as they are read. A connection that is lost meanwhile is an error: what comes
        after it would be of another moment.

        Raises:
            NotFound: There is no such job.
        """
        request = pb2.ExportLabelsRequest(job_id=job_id)
        parts = self._rpc.stream("ExportLabels", request, EXPORT_S)
        job = job_from_message(next(parts).job)
        return Export(job, (unit_from_message(part.unit) for part in parts))

    def search(
        self, text: str, *, by_meaning: bool = False, job_id: str = "", page_size: int = 100
    ) -> Iterator[LabelHit]:
        """Units whose labels have all words of `text`, or mean much the same, best first.

        Args:
            by_meaning: By the embeddings of labels; all units with a label, the nearest first.
            job_id: Only this job; all of the tenant for an empty id.
            page_size: Units of one call.

        Raises:
            NotFound: There is no such job.
            Transient: By meaning, and the scorer does not answer.
        """
        mode = pb2.SEARCH_MODE_MEANING if by_meaning else pb2.SEARCH_MODE_WORDS
        request = pb2.SearchLabelsRequest(
            text=text, mode=mode, job_id=job_id, page_size=_page(page_size)
        )
        for page in self._rpc.pages("SearchLabels", request, pb2.SearchLabelsResponse):
            for hit in page.hits:
                yield LabelHit(hit.job_id, unit_from_message(hit.unit), hit.label, hit.score)

    def images(self, job_id: str, refs: Sequence[str], max_side: int = 0) -> list[bytes]:
        """Encoded images that the results of a job refer to, in order.

        Args:
            max_side: Longer images are scaled down to it, pixels; 0 for the images as they are.

        Raises:
            NotFound: The job does not know a reference, or the store no longer has it.
        """
        images: list[bytes] = []
        for some in chunks(refs, IMAGES_PER_CALL):
            request = pb2.GetImagesRequest(job_id=job_id, refs=some, max_side=max_side)
            images += self._rpc.ask("GetImages", request, pb2.GetImagesResponse).images
        return images

    def evaluate(
        self,
        job_id: str = "",
        settings: EvaluationSettings | None = None,
        label_sets: Mapping[str, Sequence[ImportedLabel]] | None = None,
        on_progress: Callable[[EvaluationProgress], None] = lambda progress: None,
    ) -> dict[str, Any]:
        """Judges a job's labels on images and by a model that selection has not used.

        Args:
            job_id: The newest job for an empty id.
            settings: How it is done; as the job's profile says without any.
            label_sets: Labels from elsewhere, evaluated beside the job's own, by name.
            on_progress: Called as it goes on.

        Returns:
            The evaluation, as docs/evaluation.md describes it.

        Raises:
            NotFound: There is no such job.
            FailedPrecondition: No judge, no label, no held-out image, or a judge that selected.
            InvalidInput: A setting or label set makes no sense for this job.
        """
        request = pb2.EvaluateJobRequest(
            job_id=job_id,
            settings=to_message(settings or EvaluationSettings(), pb2.EvaluationSettings),
            label_sets=[
                pb2.LabelSet(name=name, labels=[to_message(one, pb2.UnitLabel) for one in labels])
                for name, labels in (label_sets or {}).items()
            ],
        )
        for response in self._rpc.follow("EvaluateJob", request):
            if response.evaluation_json:
                return dict(json.loads(response.evaluation_json))
            on_progress(from_message(response.progress, EvaluationProgress))
        raise AssertionError("the last message has the evaluation")

    def try_image(self, image: bytes, job_id: str = "") -> tuple[ExcitedUnit, ...]:
        """The labelled units of a job that a picture excites, most unusual first.

        Args:
            image: An encoded JPEG, PNG or WebP image.
            job_id: The newest job for an empty id.

        Raises:
            NotFound: There is no such job.
            BadImage: It cannot be read.
            FailedPrecondition: The job has not indexed its probe set.
            Overloaded: Others are trying something.
        """
        request = pb2.TryImageRequest(job_id=job_id, image=image)
        answer = self._rpc.ask("TryImage", request, pb2.TryImageResponse)
        return tuple(from_message(unit, ExcitedUnit) for unit in answer.units)

    def try_words(self, words: str, layer: str, unit: int, job_id: str = "") -> TriedWords:
        """Drawings of words with a unit's activations, beside its exemplars.

        The drawings are counted for the tenant, unless a job of it has drawn the same words.

        Args:
            words: 1 to 100 characters.
            job_id: The newest job for an empty id.

        Raises:
            NotFound: There is no such job or unit.
            InvalidInput: There are no words, or too many.
            FailedPrecondition: The tenant has drawn as many images as it may, or the job has not
                indexed its probe set.
            Overloaded: Others are trying something.
        """
        request = pb2.TryWordsRequest(job_id=job_id, layer=layer, unit=unit, words=words)
        return from_message(self._rpc.ask("TryWords", request, pb2.TryWordsResponse), TriedWords)

    def create_token(self, name: str, tenant: str, role: Role) -> tuple[Token, str]:
        """Makes a token; it and its secret, which the server does not keep. For operators."""
        request = pb2.CreateTokenRequest(
            name=name,
            tenant=tenant,
            role=enum_value(role, pb2.DESCRIPTOR.enum_types_by_name["Role"]),  # type: ignore[arg-type]
        )
        answer = self._rpc.ask("CreateToken", request, pb2.CreateTokenResponse)
        return from_message(answer.token, Token), answer.secret

    def list_tokens(self) -> list[Token]:
        """The tokens of all tenants, oldest first. For operators."""
        answer = self._rpc.ask("ListTokens", pb2.ListTokensRequest(), pb2.ListTokensResponse)
        return [from_message(token, Token) for token in answer.tokens]

    def revoke_token(self, token_id: str) -> Token:
        """Makes a token invalid, within seconds. For operators.

        Raises:
            NotFound: There is no such token.
        """
        request = pb2.RevokeTokenRequest(token_id=token_id)
        return from_message(
            self._rpc.ask("RevokeToken", request, pb2.RevokeTokenResponse).token, Token
        )


def _page(size: int) -> int:
    if not 1 <= size <= MAX_PAGE:
        raise InvalidInput(f"page_size = {size}: expected 1 to {MAX_PAGE}.")
    return size
