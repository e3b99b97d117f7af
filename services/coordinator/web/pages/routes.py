"""The explorer's routes: they read, and hand what they found to a template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session

from dnd.convert import from_message
from dnd.errors import InvalidInput, NotFound
from dnd.explorer.links import MAX_FAILURES, UNITS_ON_A_PAGE, UnitQuery, read_query
from dnd.explorer.site import ASSETS, read_asset
from dnd.explorer.trials import view_excited, view_words
from dnd.explorer.views import LEVEL, SIDES, LayerCard, LinkedPictures, make_bins, segments
from dnd.images import MAX_BYTES
from dnd.jobs import UnitState
from dnd.report.overview import choose_places
from dnd.report.tables import with_class
from dnd.report.units import shown_pictures, view_unit
from dnd.trials import ExcitedUnit, TriedWords
from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator import trying
from dnd_services.coordinator.models import JobLayerRow, JobRow
from dnd_services.coordinator.store import browsing, pairing, reading
from dnd_services.coordinator.store.pairing import CHANGES
from dnd_services.coordinator.web.calls import Calls, calls_of
from dnd_services.coordinator.web.pages.answers import (
    ElsewhereRoute,
    PageRoute,
    kept_for_ever,
    links_of,
    live_page,
    page,
    read_body,
)
from dnd_services.coordinator.web.pages.pictures import Pictures
from dnd_services.coordinator.web.pages.reader import Reader, Shelf

JOBS_ON_A_PAGE = 40
PAIRS_ON_A_PAGE = 60
MAX_CHOICES = 100
MAX_LAYER_CARDS = 60
SEARCHES = {"words": "with these words", "meaning": "that mean much the same"}
MAX_UNIT = 2**31 - 1
"""A unit's number in a request."""

router = APIRouter(include_in_schema=False, route_class=PageRoute)


def reader_of(request: Request, calls: Annotated[Calls, Depends(calls_of)]) -> Reader:
    """What a page reads with, on behalf of whoever asks."""
    state = request.app.state
    if not hasattr(state, "shelf"):
        state.shelf, state.pictures = Shelf(), Pictures()
    return Reader(state.servicer, calls.tenant, state.shelf)


Asks = Annotated[Calls, Depends(calls_of)]
Reads = Annotated[Reader, Depends(reader_of)]


@router.get("/")
def home(request: Request) -> Response:
    return RedirectResponse(links_of(request).jobs())


@router.get("/static/{name}")
def asset(request: Request, name: str) -> Response:
    if name not in ASSETS:
        raise NotFound(f"There is nothing at {request.url.path}.")
    return kept_for_ever(request, read_asset(name), ASSETS[name][2])


@router.get("/jobs")
def jobs_page(request: Request, reader: Reads, before: str = "") -> Response:
    found = reader.read(lambda session: reader.list_jobs(session, before, JOBS_ON_A_PAGE + 1))
    shown = found[:JOBS_ON_A_PAGE]
    more = len(found) > JOBS_ON_A_PAGE
    return live_page(
        request,
        "jobs",
        ended=bool(before) or all(job.state.ended for job in shown),
        jobs=[(job, segments(job.units)) for job in shown],
        before=before,
        older=f"{links_of(request).jobs()}?before={shown[-1].id}" if more else "",
    )


@router.get("/jobs/{job_id}")
def job_page(request: Request, reader: Reads, job_id: str) -> Response:
    links = links_of(request)

    def look(session: Session) -> Response:
        row = reader.find(session, job_id)
        job = reader.job(session, row)
        layers = reading.read_layers(session, row.id)
        failed = UnitQuery(state=UnitState.FAILED)
        failures: tuple[reading.UnitView, ...] = ()
        if job.num_failed:
            failures = browsing.browse_units(session, row, failed, 0, MAX_FAILURES).views
        return live_page(
            request,
            "job",
            ended=job.state.ended,
            job=job,
            bars=segments(job.units),
            elapsed_s=(job.ended_at_s or reader.now(session)) - job.created_at_s,
            query=UnitQuery(),
            failed_query=failed,
            failures=[reader.card(row, view, links) for view in failures],
            layers=_layer_cards(session, row, layers[:MAX_LAYER_CARDS]),
            num_layers=len(layers),
            samples=[
                reader.card(row, view, links)
                for place in choose_places(job, job.num_units)
                for view in reading.list_units(session, row, "", None, place, 1)
            ],
            can_try=True,
        )

    return reader.read(look)


def _layer_cards(session: Session, job: JobRow, layers: Sequence[JobLayerRow]) -> list[LayerCard]:
    counts = browsing.count_states(session, job, layers)
    return [
        LayerCard(
            layer.layer,
            layer.num_units,
            segments(counts[layer.place]),
            UnitQuery(layer=layer.layer),
            make_bins(browsing.count_percentiles(session, job, [layer])),
        )
        for layer in layers
    ]


@router.get("/jobs/{job_id}/units")
def units_page(request: Request, reader: Reads, job_id: str) -> Response:
    query = read_query(request.query_params)
    links = links_of(request)
    start = (query.page - 1) * UNITS_ON_A_PAGE

    def look(session: Session) -> Response:
        row = reader.find(session, job_id)
        layers = browsing.choose_layers(session, row, query.layer)
        found = browsing.browse_units(session, row, query, start, UNITS_ON_A_PAGE)
        counts: Counter[str] = Counter()
        for one in browsing.count_states(session, row, layers).values():
            counts.update({state.value: num for state, num in one.items()})
        return page(
            request,
            "units.html.j2",
            job=reader.job(session, row),
            query=query,
            plain=UnitQuery(),
            layers=[one.layer for one in reading.read_layers(session, row.id)],
            counts=counts,
            bins=make_bins(browsing.count_percentiles(session, row, layers)),
            cards=[reader.card(row, view, links, query) for view in found.views],
            total=found.total,
            num_pages=-(-found.total // UNITS_ON_A_PAGE),
        )

    return reader.read(look)


@router.get("/jobs/{job_id}/units/{layer:path}/{unit:int}")
def unit_page(request: Request, reader: Reads, job_id: str, layer: str, unit: int) -> Response:
    links = links_of(request)
    query = read_query(dict(parse_qsl(request.query_params.get("in", ""))))

    def look(session: Session) -> Response:
        row = reader.find(session, job_id)
        view = reading.find_unit(session, row, layer, unit)
        record = reader.record(session, row, layer, unit)
        record = with_class(record, reader.class_names(row).get(layer, ()))
        pictures = LinkedPictures(links, record, reader.sizes(record))
        listed = query if query.limits or query.sort != "unit" else UnitQuery(layer=layer)
        before, after = browsing.find_neighbours(session, row, listed, view)
        return page(
            request,
            "unit.html.j2",
            job=reader.job(session, row),
            unit=view_unit(record, pictures, LEVEL),
            histogram=reader.histogram(view, record),
            up=links.units(job_id, listed),
            before=reader.card(row, before, links, query) if before else None,
            after=reader.card(row, after, links, query) if after else None,
            can_try=True,
        )

    return reader.read(look)


@router.get("/jobs/{job_id}/units/{layer:path}/{unit:int}/images/{ref}")
def image(
    request: Request, reader: Reads, job_id: str, layer: str, unit: int, ref: str, side: int = 320
) -> Response:
    if side not in SIDES:
        sides = ", ".join(map(str, SIDES))
        raise InvalidInput(f"side = {side}: expected one of {sides}.")

    def find(session: Session) -> bool:
        row = reader.find(session, job_id)
        record = reader.record(session, row, layer, unit)
        return any(ref == shown for shown, _ in shown_pictures(record, LEVEL))

    if not reader.read(find):
        raise NotFound(f"Unit {unit} of layer {layer!r} shows no image {ref[:100]}.")
    pictures: Pictures = request.app.state.pictures
    return kept_for_ever(request, pictures.thumbnail(reader.artifacts, ref, side), "image/webp")


@router.get("/jobs/{job_id}/units/{layer:path}/{unit:int}/mosaic")
def mosaic(request: Request, reader: Reads, job_id: str, layer: str, unit: int) -> Response:
    def find(session: Session) -> Sequence[str]:
        row = reader.find(session, job_id)
        return reader.exemplar_refs(session, row, reading.find_unit(session, row, layer, unit))

    refs = reader.read(find)
    pictures: Pictures = request.app.state.pictures
    return kept_for_ever(request, pictures.mosaic(reader.artifacts, refs), "image/webp")


@router.get("/search")
def search_page(request: Request, reader: Reads, q: str = "", by: str = "words") -> Response:
    words = read_query({"q": q}).words
    if by not in SEARCHES:
        raise InvalidInput(f"by = {by[:40]!r}: expected {' or '.join(SEARCHES)}.")
    links = links_of(request)
    if by == "meaning" and words:
        hits = reader.search_by_meaning(words, UNITS_ON_A_PAGE)
        found = [
            (
                hit.job,
                replace(reader.card(hit.job, hit.view, links), found=hit.label, score=hit.score),
            )
            for hit in hits
        ]
        total = len(found)
    else:
        rows, total = reader.read(lambda session: reader.search(session, words, 0, UNITS_ON_A_PAGE))
        found = [(job, reader.card(job, view, links)) for job, view in rows]
    return page(
        request,
        "search.html.j2",
        words=words,
        by=by,
        SEARCHES=SEARCHES,
        cards=[(job.frozen["model"], card) for job, card in found],
        total=total,
    )


@router.get("/compare")
def compare_page(
    request: Request,
    reader: Reads,
    a: str = "",
    b: str = "",
    show: str = "changed",
    page_number: Annotated[int, Query(alias="page", ge=1, le=1_000_000)] = 1,
) -> Response:
    links = links_of(request)
    changes = "" if show == "all" else show
    if changes not in CHANGES:
        raise InvalidInput(f"show = {show[:40]!r}: expected changed, same or all.")

    def turn(number: int) -> str:
        return links.compare(a, b, show=show, page=str(number) if number > 1 else "")

    def look(session: Session) -> Response:
        first = reader.find(session, a) if a else None
        second = reader.find(session, b) if b else None
        chosen = {job.id: reader.job(session, job) for job in (first, second) if job}
        listed = reader.list_jobs(session, "", MAX_CHOICES)
        jobs = [*listed, *(job for job in chosen.values() if job not in listed)]
        found: tuple[list[Any], int] = ([], 0)
        if first and second:
            start = (page_number - 1) * PAIRS_ON_A_PAGE
            found = pairing.pair_units(session, first, second, changes, start, PAIRS_ON_A_PAGE)
        pairs, total = found
        return page(
            request,
            "compare.html.j2",
            jobs=jobs,
            first=first,
            second=second,
            changes=changes,
            CHANGES=CHANGES,
            agreement=pairing.count_agreement(session, first, second) if first and second else None,
            pairs=[
                (reader.card(first, left, links), reader.card(second, right, links))
                for left, right in pairs
                if first and second
            ],
            before=turn(page_number - 1) if page_number > 1 else "",
            after=turn(page_number + 1) if page_number * PAIRS_ON_A_PAGE < total else "",
        )

    return reader.read(look)


@router.get("/jobs/{job_id}/try")
def try_page(
    request: Request, reader: Reads, job_id: str, layer: str = "", unit: int = 0
) -> Response:
    links = links_of(request)

    def look(session: Session) -> Response:
        row = reader.find(session, job_id)
        view = reading.find_unit(session, row, layer, unit) if layer else None
        return page(
            request,
            "try.html.j2",
            job=reader.job(session, row),
            card=reader.card(row, view, links) if view else None,
        )

    return reader.read(look)


@router.post("/jobs/{job_id}/try")
async def try_picture(request: Request, calls: Asks, job_id: str) -> Response:
    data = await read_body(request, MAX_BYTES)
    answer = await calls.ask(pb2.TryImageRequest(job_id=job_id, image=data), pb2.TryImageResponse)
    found = view_excited([from_message(unit, ExcitedUnit) for unit in answer.units])
    return page(request, "try_picture.html.j2", job=job_id, found=found)


@router.post("/jobs/{job_id}/units/{layer:path}/{unit:int}/try")
async def try_words(
    request: Request,
    calls: Asks,
    job_id: str,
    layer: str,
    unit: Annotated[int, Path(le=MAX_UNIT)],
) -> Response:
    words = (await read_body(request, 4 * trying.MAX_WORDS)).decode(errors="replace")
    asked = pb2.TryWordsRequest(job_id=job_id, layer=layer, unit=unit, words=words)
    tried = from_message(await calls.ask(asked, pb2.TryWordsResponse), TriedWords)
    return page(request, "try_words.html.j2", answer=view_words(tried))


def elsewhere(request: Request) -> Response:
    raise NotFound(f"There is nothing at {request.url.path}.")


router.add_api_route("/{path:path}", elsewhere, route_class_override=ElsewhereRoute)
