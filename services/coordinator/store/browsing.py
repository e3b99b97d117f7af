"""Units of a job as a person looks through them: filtered, sorted, a page at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Integer, cast, func, select
from sqlalchemy.orm import Session

from dnd.errors import NotFound
from dnd.explorer.links import NUM_BINS, UnitQuery
from dnd.jobs import UnitState
from dnd_services.coordinator.models import JobLayerRow, JobRow, UnitRow
from dnd_services.coordinator.store.reading import (
    UnitView,
    read_layers,
    state_of_unended,
    view_unit,
)
from dnd_services.coordinator.store.rows import units_between
from dnd_services.coordinator.store.search import has_text


@dataclass(frozen=True)
class Found:
    """Units of a query from some place on, and how many there are in all."""

    views: tuple[UnitView, ...]
    total: int


def browse_units(session: Session, job: JobRow, query: UnitQuery, start: int, limit: int) -> Found:
    """The units of a query from place `start` on; those without rows come last.

    Raises:
        NotFound: The job does not have the layer.
    """
    layers = choose_layers(session, job, query.layer)
    by_place = {layer.place: layer for layer in layers}
    where = _conditions(job, query, by_place)
    num_rows = session.scalar(select(func.count()).select_from(UnitRow).where(*where)) or 0
    rows = session.scalars(
        select(UnitRow).where(*where).order_by(*_order(query)).offset(start).limit(limit)
    )
    views = [view_unit(job, by_place[row.place], row.unit, row.ordinal, row) for row in rows]
    num_bare = sum(last - first for _, first, last in _bare(job, layers, query))
    if len(views) < limit and num_bare:
        bare = _bare_units(job, layers, query, max(start - num_rows, 0), limit - len(views))
        views += [view_unit(job, layer, unit, ordinal, None) for layer, ordinal, unit in bare]
    return Found(tuple(views), num_rows + num_bare)


def choose_layers(session: Session, job: JobRow, layer: str) -> list[JobLayerRow]:
    """The layer of a job, or all of them for an empty name.

    Raises:
        NotFound: The job does not have the layer.
    """
    layers = read_layers(session, job.id)
    chosen = [one for one in layers if layer in ("", one.layer)]
    if not chosen:
        names = ", ".join(one.layer for one in layers)
        raise NotFound(f"Job {job.id} has no layer {layer[:200]!r}: its layers are {names}.")
    return chosen


def find_neighbours(
    session: Session, job: JobRow, query: UnitQuery, unit: UnitView
) -> tuple[UnitView | None, UnitView | None]:
    """The units before and after a unit in the list of a query; None where there is none."""
    layers = choose_layers(session, job, query.layer)
    where = _conditions(job, query, {layer.place: layer for layer in layers})
    order = _order(query)
    listed = select(
        UnitRow.ordinal,
        func.row_number().over(order_by=order).label("number"),
    ).where(*where)
    numbered = listed.subquery()
    number = session.scalar(select(numbered.c.number).where(numbered.c.ordinal == unit.ordinal))
    if number is None:  # it has no row yet, or is none of these
        return None, None
    first = max(int(number) - 2, 0)
    views = browse_units(session, job, query, first, 3).views
    at = [view.ordinal for view in views].index(unit.ordinal)
    return views[at - 1] if at else None, views[at + 1] if at + 1 < len(views) else None


def count_percentiles(
    session: Session, job: JobRow, layers: Sequence[JobLayerRow]
) -> tuple[int, ...]:
    """Units of some layers by percentile, in bins of equal width from 0 to 1."""
    place: ColumnElement[Any] = func.floor(UnitRow.percentile * NUM_BINS)
    if session.get_bind().dialect.name == "sqlite":  # which need not have that function
        place = cast(UnitRow.percentile * NUM_BINS, Integer)
    statement = (
        select(place, func.count())
        .where(
            UnitRow.job_id == job.id,
            UnitRow.place.in_([layer.place for layer in layers]),
            UnitRow.percentile.is_not(None),
        )
        .group_by(place)
    )
    bins = [0] * NUM_BINS
    for number, count in session.execute(statement):
        bins[min(int(number), NUM_BINS - 1)] += count
    return tuple(bins)


def count_states(
    session: Session, job: JobRow, layers: Sequence[JobLayerRow]
) -> dict[int, dict[UnitState, int]]:
    """Units by state, those without rows too, for each layer by its place."""
    statement = (
        select(UnitRow.place, UnitRow.state, func.count())
        .where(UnitRow.job_id == job.id, UnitRow.place.in_([layer.place for layer in layers]))
        .group_by(UnitRow.place, UnitRow.state)
    )
    unended = state_of_unended(job)
    counts: dict[int, Counter[UnitState]] = {layer.place: Counter() for layer in layers}
    for place, name, count in session.execute(statement):
        state = UnitState(name)
        counts[place][unended if state is UnitState.PENDING else state] += count
    for layer, first, last in _bare(job, layers, UnitQuery()):
        counts[layer.place][unended] += last - first
    return {place: dict(found) for place, found in counts.items()}


def search_units(
    session: Session, tenant: str, words: str, start: int, limit: int
) -> tuple[list[tuple[JobRow, UnitView]], int]:
    """Units of all jobs of a tenant whose labels have all `words`, best percentile first.

    Returns:
        Each with its job, and how many there are in all.
    """
    if not words.split():
        return [], 0
    joined = (
        select(JobRow, JobLayerRow, UnitRow)
        .join(UnitRow, UnitRow.job_id == JobRow.id)
        .join(
            JobLayerRow,
            (JobLayerRow.job_id == UnitRow.job_id) & (JobLayerRow.place == UnitRow.place),
        )
        .where(JobRow.tenant == tenant, JobRow.deleted_at == 0, *_has_words(words))
    )
    count = joined.with_only_columns(func.count())
    order = (UnitRow.percentile.desc().nulls_last(), JobRow.id.desc(), UnitRow.ordinal)
    rows = session.execute(joined.order_by(*order).offset(start).limit(limit))
    found = [(job, view_unit(job, layer, row.unit, row.ordinal, row)) for job, layer, row in rows]
    return found, session.scalar(count) or 0


def _conditions(
    job: JobRow, query: UnitQuery, by_place: dict[int, JobLayerRow]
) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [UnitRow.job_id == job.id]
    if query.layer:
        where.append(UnitRow.place.in_(list(by_place)))
    if query.state is not None:
        stored = {query.state.value}
        if query.state is state_of_unended(job):
            stored.add(UnitState.PENDING.value)
        elif query.state is UnitState.PENDING:
            stored = set()
        where.append(UnitRow.state.in_(sorted(stored)))
    where += _has_words(query.words)
    if query.low > 0:
        where.append(UnitRow.percentile >= query.low)
    if query.high < 1:
        where.append(UnitRow.percentile < query.high)
    return where


def _has_words(words: str) -> list[ColumnElement[bool]]:
    """Each word occurs in a label."""
    return [has_text(word) for word in words.split()]


def _order(query: UnitQuery) -> list[ColumnElement[Any]]:
    label = UnitRow.labels[0].as_string()
    first: dict[str, list[ColumnElement[Any]]] = {
        "percentile": [UnitRow.percentile.desc().nulls_last()],
        "lowest": [UnitRow.percentile.asc().nulls_last()],
        "auc": [UnitRow.auc.desc().nulls_last()],
        "label": [func.lower(label).asc().nulls_last()],
    }
    return [*first.get(query.sort, []), UnitRow.ordinal.asc()]


def _bare(
    job: JobRow, layers: Sequence[JobLayerRow], query: UnitQuery
) -> Iterator[tuple[JobLayerRow, int, int]]:
    """The ordinals without rows, layer by layer, if the query takes such units."""
    if query.words or query.limits_percentile:
        return
    if query.state not in (None, state_of_unended(job)):
        return
    for layer in layers:
        last = layer.first_ordinal + layer.num_units
        first = min(max(job.next_ordinal, layer.first_ordinal), last)
        if first < last:
            yield layer, first, last


def _bare_units(
    job: JobRow, layers: Sequence[JobLayerRow], query: UnitQuery, skip: int, limit: int
) -> Iterator[tuple[JobLayerRow, int, int]]:
    for layer, first, last in _bare(job, layers, query):
        begin = min(first + skip, last)
        skip -= begin - first
        stop = min(begin + limit, last)
        limit -= stop - begin
        for ordinal, unit in units_between(layer, begin, stop):
            yield layer, ordinal, unit
