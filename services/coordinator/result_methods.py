"""The methods that answer what came of jobs: units, labels, images, evaluations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from dnd.clients import Services
from dnd.convert import enum_member, to_message
from dnd.errors import NotFound, RequestTooLarge
from dnd.images import decode_image, encode_thumbnail
from dnd.jobs import UnitState
from dnd.serving.inputs import check_count, check_range, request_context
from dnd.types import RequestContext
from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator import evaluating, views
from dnd_services.coordinator.answering import Answering, GrpcContext
from dnd_services.coordinator.job_images import JobImages
from dnd_services.coordinator.judging import Watcher
from dnd_services.coordinator.long_runs import LongRuns
from dnd_services.coordinator.models import JobRow
from dnd_services.coordinator.paging import (
    kind_of_list,
    make_token,
    page_size,
    read_question,
    read_token,
)
from dnd_services.coordinator.record_cache import RecordCache
from dnd_services.coordinator.searching import Hit, find_by_meaning, find_by_words
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.store import Store, jobs, reading
from dnd_services.coordinator.store.search import has_text, in_percentiles

_UNIT_STATE = pb2.DESCRIPTOR.enum_types_by_name["UnitState"]
_IMAGE_MARKS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")
_MAX_ANSWER_BYTES = 48 * 2**20
_MIN_SIDE, _MAX_SIDE = 16, 2048
_UNITS_AT_ONCE = 50


class ResultMethods(Answering):
    """Answers what came of jobs."""

    def __init__(
        self,
        store: Store,
        services: Services,
        settings: CoordinatorSettings,
        nudge: Callable[[], None],
    ) -> None:
        super().__init__(store, services, settings, nudge)
        self._images = JobImages(store, services.artifacts)
        self._records = RecordCache(services.artifacts, self._images.remember)
        self._evaluations = LongRuns[str]()

    def close(self) -> None:
        """Ends the threads."""
        super().close()
        self._evaluations.close()

    async def GetUnit(
        self, request: pb2.GetUnitRequest, context: GrpcContext
    ) -> pb2.GetUnitResponse:
        asked = request_context(request)

        def unit(session: Session) -> pb2.UnitResult:
            job = jobs.find_job(session, asked.tenant, request.job_id)
            view = reading.find_unit(session, job, request.layer, request.unit)
            return self._unit(job, view, with_record=True)

        return pb2.GetUnitResponse(unit=await self._read(unit))

    async def ListLabels(
        self, request: pb2.ListLabelsRequest, context: GrpcContext
    ) -> pb2.ListLabelsResponse:
        asked = request_context(request)
        size = page_size(request.page_size)
        kind = kind_of_list("units", request)
        start = read_token(request.page_token, kind, int) if request.page_token else 0
        state = enum_member(request.state, _UNIT_STATE, UnitState) if request.state else None
        where = (*_percentiles_of(request), *_text_of(request))

        def page(session: Session) -> pb2.ListLabelsResponse:
            job = jobs.find_job(session, asked.tenant, request.job_id)
            found = reading.list_units(
                session, job, request.layer, state, start, size + 1, where=where
            )
            return pb2.ListLabelsResponse(
                units=[
                    self._unit(job, view, with_record=request.with_records) for view in found[:size]
                ],
                next_page_token=make_token(kind, found[size].ordinal) if len(found) > size else "",
            )

        return await self._read(page)

    async def ExportLabels(
        self, request: pb2.ExportLabelsRequest, context: GrpcContext
    ) -> AsyncIterator[pb2.ExportLabelsResponse]:
        asked = request_context(request)
        parts = self._export(asked, request.job_id)
        try:
            while batch := await self._look(lambda: next(parts, [])):
                for part in batch:
                    yield part
        finally:
            await self._look(parts.close)

    def _export(
        self, asked: RequestContext, job_id: str
    ) -> Generator[list[pb2.ExportLabelsResponse], None, None]:
        """The job and its units, some at a time, from one state of the record."""
        with self._store.snapshot() as session:
            job = jobs.find_job(session, asked.tenant, job_id)
            yield [pb2.ExportLabelsResponse(job=self._message(session, job))]
            start = 0
            while found := reading.list_units(session, job, "", None, start, _UNITS_AT_ONCE):
                units = [self._unit(job, view, with_record=True) for view in found]
                session.expunge_all()  # else every unit would stay in memory
                yield [pb2.ExportLabelsResponse(unit=unit) for unit in units]
                start = found[-1].ordinal + 1

    async def SearchLabels(
        self, request: pb2.SearchLabelsRequest, context: GrpcContext
    ) -> pb2.SearchLabelsResponse:
        asked = request_context(request)
        size = page_size(request.page_size)
        check_count("characters in its text", len(request.text.strip()), 1, 200)
        kind = kind_of_list("hits", request)
        start = read_token(request.page_token, kind, int) if request.page_token else 0
        by_meaning = request.mode == pb2.SEARCH_MODE_MEANING
        find = find_by_meaning if by_meaning else find_by_words

        def search() -> list[Hit]:
            services = self._services.for_context(asked)
            scope = (asked.tenant, request.job_id)
            return find(self._store, services, scope, request.text, start, size + 1)

        hits = await (self._ask(search) if by_meaning else self._look(search))
        return pb2.SearchLabelsResponse(
            hits=[
                pb2.LabelHit(
                    job_id=hit.job.id,
                    unit=self._unit(hit.job, hit.view, with_record=False),
                    label=hit.label,
                    score=hit.score,
                )
                for hit in hits[:size]
            ],
            next_page_token=make_token(kind, start + size) if len(hits) > size else "",
        )

    async def GetImages(
        self, request: pb2.GetImagesRequest, context: GrpcContext
    ) -> pb2.GetImagesResponse:
        check_count("references", len(request.refs), 1, 64)
        if request.max_side:
            check_range("max_side", request.max_side, _MIN_SIDE, _MAX_SIDE)
        asked = request_context(request)

        def images() -> list[bytes]:
            with self._store.reading() as session:
                job = jobs.find_job(session, asked.tenant, request.job_id)
            self._images.check(job, request.refs)
            found: list[bytes] = []
            for ref in request.refs:
                found.append(self._read_image(ref, request.max_side))
                if sum(map(len, found)) > _MAX_ANSWER_BYTES:
                    raise RequestTooLarge(
                        f"The images have more than {_MAX_ANSWER_BYTES >> 20} MiB together: ask "
                        "for fewer at once, or for smaller ones with max_side."
                    )
            return found

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

    def _unit(self, job: JobRow, view: reading.UnitView, *, with_record: bool) -> pb2.UnitResult:
        message = views.unit_message(job, view)
        if with_record and view.state is not UnitState.PENDING:
            message.record_json = self._records.get(job, view)
        return message

    def _read_image(self, ref: str, max_side: int) -> bytes:
        data = self._services.artifacts.get_bytes(ref)
        if not data.startswith(_IMAGE_MARKS):  # indexes and records lie in the same store
            raise NotFound(f"There is no image {ref}.")
        if not max_side:
            return data
        image = decode_image(data)
        return encode_thumbnail(image, max_side) if max(image.size) > max_side else data


def _percentiles_of(request: pb2.ListLabelsRequest) -> tuple[ColumnElement[bool], ...]:
    """Conditions on percentiles that a request makes."""
    low = request.min_percentile if request.HasField("min_percentile") else None
    high = request.max_percentile if request.HasField("max_percentile") else None
    for name, value in (("min_percentile", low), ("max_percentile", high)):
        if value is not None:
            check_range(name, value, 0, 1)
    return in_percentiles(low, high)


def _text_of(request: pb2.ListLabelsRequest) -> tuple[ColumnElement[bool], ...]:
    """The condition on labels that a request makes."""
    if not request.label_text:
        return ()
    check_count("characters in its label_text", len(request.label_text), 1, 200)
    return (has_text(request.label_text),)
