"""Rows of units, written in chunks just ahead of the work on them: a job costs nothing per unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from dnd.artifacts import ArtifactStore
from dnd.jobs import JobState, UnitState
from dnd.types import UnitActivity
from dnd_services.coordinator import states
from dnd_services.coordinator.dissections import JobDissections
from dnd_services.coordinator.models import JobLayerRow, JobRow, UnitRow, WorkRow
from dnd_services.coordinator.store.bulk import insert_rows
from dnd_services.coordinator.store.counters import UNIT, Tally, read_counters
from dnd_services.coordinator.store.spending import limits_of, spend
from dnd_services.coordinator.store.steps import dissections, end_job_if_done, read_job

ACTIVITIES = tuple(UnitActivity)
"""Codes of activities in `JobLayerRow.activities_ref`: the place in this tuple."""

_FIRST_STAGE = "exemplars"
_SETTLED = {UnitActivity.DEAD: UnitState.DEAD, UnitActivity.TIED: UnitState.TIED}
_LABELLED = {UnitActivity.LIVE: UnitState.LABELED, UnitActivity.SPARSE: UnitState.SPARSE}


def encode_activities(activities: Sequence[UnitActivity]) -> np.ndarray:
    """Activities of a layer's units as uint8 (units,)."""
    codes = {activity: code for code, activity in enumerate(ACTIVITIES)}
    return np.array([codes[activity] for activity in activities], dtype=np.uint8)


def count_live(codes: np.ndarray, ranges: Sequence[Sequence[int]]) -> int:
    """Units of `ranges` that are neither dead nor tied."""
    settled = [ACTIVITIES.index(activity) for activity in _SETTLED]
    live_before = np.concatenate(([0], np.cumsum(~np.isin(codes, settled))))
    firsts, ends = np.asarray(ranges).T
    return int(np.sum(live_before[ends] - live_before[firsts]))


def jobs_to_fill(session: Session) -> list[JobRow]:
    """Running jobs with an index, and dissections if they need them, whose units lack rows."""
    statement = (
        select(JobRow)
        .where(
            JobRow.state == JobState.RUNNING.value,
            JobRow.num_live >= 0,
            JobRow.next_ordinal < JobRow.num_units,
            ~exists().where(
                WorkRow.job_id == JobRow.id,
                WorkRow.stage == "dissect",
                WorkRow.state != states.DONE,
            ),
        )
        .order_by(JobRow.is_batch, JobRow.id)
    )
    return list(session.scalars(statement))


def num_pending(session: Session, job_id: str) -> int:
    """Units of a job that have rows and have not ended."""
    return read_counters(session, job_id).get(UNIT, {}).get(UnitState.PENDING.value, 0)


def fill_rows(
    session: Session,
    job_id: str,
    num_units: int,
    artifacts: ArtifactStore,
    now: float,
) -> int:
    """Writes the next rows of a job, answers how many.

    Dead and tied units end here at no cost, and so do those that a concept set labels.

    Args:
        num_units: Rows to write at most.
        artifacts: Where activities and dissections lie.
    """
    job = read_job(session, job_id)
    if job is None or job.state != JobState.RUNNING.value or job.num_live < 0:
        return 0
    tally = Tally(session)
    units, works, turns = [], [], []
    layers = list(
        session.scalars(
            select(JobLayerRow).where(JobLayerRow.job_id == job_id).order_by(JobLayerRow.place)
        )
    )
    refs = {work.ordinal: work.output for work in dissections(session, job_id)}
    found = JobDissections(artifacts, job, layers, refs)
    most = limits_of(job).max_units or job.num_units
    last = max(job.next_ordinal, min(job.next_ordinal + num_units, job.num_units, most))
    for layer in layers:
        first = max(job.next_ordinal, layer.first_ordinal)
        if first >= min(last, layer.first_ordinal + layer.num_units):
            continue
        codes = artifacts.get_array(layer.activities_ref)
        ref = refs.get(layer.place, "")
        for ordinal, unit in units_between(layer, first, last):
            activity = ACTIVITIES[codes[unit]]
            described = found.is_described(layer.place, unit)
            labels = () if described else found.labels(layer.place, unit)
            state = _SETTLED.get(activity)
            if state is None:
                state = UnitState.PENDING if described else _LABELLED[activity]
            pending = state is UnitState.PENDING
            units.append(
                {
                    "job_id": job_id,
                    "ordinal": ordinal,
                    "place": layer.place,
                    "unit": unit,
                    "state": state.value,
                    "stage": _FIRST_STAGE if pending else "",
                    "labels": list(labels),
                    "outputs": {"dissect": ref} if ref and activity in _LABELLED else {},
                }
            )
            tally.add(job_id, UNIT, state.value)
            if pending:
                turns.append(found.turn(layer.place, unit))
                works.append(
                    {
                        "job_id": job_id,
                        "stage": _FIRST_STAGE,
                        "scope": states.UNITS,
                        "ordinal": ordinal,
                        "state": states.READY,
                    }
                )
    insert_rows(session, UnitRow, units)
    if works:
        works = [works[place] for place in np.argsort(turns, kind="stable")]
        insert_rows(session, WorkRow, works)
        tally.add(job_id, _FIRST_STAGE, states.READY, len(works))
    job.next_ordinal = last
    job.num_ended += len(units) - len(works)
    spend(tally, job, num_units=len(units) - len(works))
    end_job_if_done(session, tally, job, now)
    return len(units)


def units_between(layer: JobLayerRow, first: int, last: int) -> Iterator[tuple[int, int]]:
    """(ordinal, unit) of a layer's units whose ordinal lies in first..last (exclusive)."""
    ordinal = layer.first_ordinal
    for start, stop in layer.ranges:
        if ordinal >= last:
            return
        low = max(first, ordinal)
        high = min(last, ordinal + stop - start)
        for place in range(low, high):
            yield place, start + place - ordinal
        ordinal += stop - start


def ordinal_of(layer: JobLayerRow, unit: int) -> int | None:
    """The ordinal of a unit in its job; None if the job does not have it."""
    ordinal = layer.first_ordinal
    for start, stop in layer.ranges:
        if start <= unit < stop:
            return ordinal + unit - int(start)
        ordinal += stop - start
    return None
