"""Jobs as a whole: made once, held back, cancelled, run again."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, undefer

from dnd.errors import AlreadyExists, FailedPrecondition, NotFound
from dnd.jobs import JobState, Limits, Method, UnitState
from dnd_services.coordinator import states
from dnd_services.coordinator.models import JobLayerRow, JobRow, UnitRow, WorkRow
from dnd_services.coordinator.store.counters import UNIT, Tally
from dnd_services.coordinator.store.engine import Store
from dnd_services.coordinator.store.health import probe_soon
from dnd_services.coordinator.store.sets import (
    Need,
    ask_for_sets,
    drop_waits,
    reopen_bank,
    reopen_sets,
)
from dnd_services.coordinator.store.spending import limits_of, read_usage
from dnd_services.coordinator.store.steps import find_bank

_RECENT_JOBS = 20


@dataclass(frozen=True)
class NewLayer:
    """A layer of a new job: its units as [first, after last] pairs."""

    layer: str
    ranges: tuple[tuple[int, int], ...]

    @property
    def num_units(self) -> int:
        return sum(stop - start for start, stop in self.ranges)


@dataclass(frozen=True)
class NewJob:
    """All that a job is made from; nothing of it grows with the number of units.

    Attributes:
        bank: Drawings that labels are compared with; empty for none.
        max_jobs: Jobs of the tenant that have not ended, at most; 0 for any number.
        trace: `traceparent` of the call that makes it; empty for none.
    """

    tenant: str
    request_id: str
    body_hash: str
    spec: bytes
    profile: str
    is_batch: bool
    layers: tuple[NewLayer, ...]
    num_shards: int
    num_skipped_images: int
    method: Method = Method.DND
    frozen: dict[str, Any] = field(default_factory=dict)
    bank: tuple[Need, ...] = ()
    limits: Limits = field(default_factory=Limits)
    max_jobs: int = 0
    trace: str = ""

    @property
    def num_units(self) -> int:
        return sum(layer.num_units for layer in self.layers)


def find_request(session: Session, tenant: str, request_id: str, body_hash: str) -> JobRow | None:
    """The job that a request has made already.

    Raises:
        AlreadyExists: The request id belongs to another specification.
    """
    job = session.scalars(
        select(JobRow).where(JobRow.tenant == tenant, JobRow.request_id == request_id)
    ).one_or_none()
    if job is not None and job.body_hash != body_hash:
        raise AlreadyExists(
            f"The request id {request_id!r} belongs to job {job.id}, which has another "
            "specification: send the same specification again, or choose a new request id."
        )
    return job


def create_job(store: Store, new: NewJob) -> JobRow:
    """Makes a job and its shards; the same request twice gives the same job.

    Raises:
        AlreadyExists: The request id belongs to another specification.
        FailedPrecondition: The tenant has as many jobs as it may.
    """
    try:
        with store.writing(is_urgent=True) as session:
            job = find_request(session, new.tenant, new.request_id, new.body_hash)
            if job is None:
                _check_quota(session, new)
            return job or _insert(session, new, store.now(session))
    except IntegrityError:  # another process was faster with the same request
        with store.reading() as session:
            job = find_request(session, new.tenant, new.request_id, new.body_hash)
            if job is None:
                raise
            return job


def _check_quota(session: Session, new: NewJob) -> None:
    if not new.max_jobs:
        return
    going_on = (JobState.RUNNING.value, JobState.PAUSED.value)
    num_jobs = session.scalar(
        select(func.count())
        .select_from(JobRow)
        .where(JobRow.tenant == new.tenant, JobRow.state.in_(going_on))
    )
    if num_jobs and num_jobs >= new.max_jobs:
        raise FailedPrecondition(
            f"Tenant {new.tenant!r} has {num_jobs} jobs that have not ended, of at most "
            f"{new.max_jobs}: wait until one ends, or cancel one."
        )


def _insert(session: Session, new: NewJob, now: float) -> JobRow:
    job = JobRow(
        id=f"{int(now * 1000):011x}{secrets.token_hex(3)}",  # sorts by time
        tenant=new.tenant,
        request_id=new.request_id,
        body_hash=new.body_hash,
        spec=new.spec,
        frozen=new.frozen,
        profile=new.profile,
        is_batch=new.is_batch,
        state=JobState.RUNNING.value,
        num_units=new.num_units,
        num_shards=new.num_shards,
        num_skipped_images=new.num_skipped_images,
        created_at=now,
        limits=asdict(new.limits),
        trace=new.trace,
    )
    session.add(job)
    tally = Tally(session)
    first = 0
    for place, layer in enumerate(new.layers):
        session.add(
            JobLayerRow(
                job_id=job.id,
                place=place,
                layer=layer.layer,
                ranges=[list(pair) for pair in layer.ranges],
                num_units=layer.num_units,
                first_ordinal=first,
            )
        )
        first += layer.num_units
    shards = [("index", states.SHARD, n, states.READY, 0) for n in range(new.num_shards)]
    merge = [("index", states.MERGE, 0, states.BLOCKED, new.num_shards)]
    of_layers = [
        stage
        for stage, needed in (
            ("dissect", bool(new.frozen.get("concepts_ref"))),
            ("score", new.method is not Method.CLIP_DISSECT),
        )
        if needed
    ]
    layers = [
        (stage, states.LAYER, n, states.BLOCKED, 1)
        for stage in of_layers
        for n in range(len(new.layers))
    ]
    bank = []
    if new.bank:
        asked = ask_for_sets(session, tally, job.id, {states.BANK_ORDINAL: new.bank})
        num_open = asked[states.BANK_ORDINAL].num_open
        state = states.BLOCKED if num_open else states.READY
        bank = [("calibrate", states.BANK, states.BANK_ORDINAL, state, num_open)]
    for stage, scope, ordinal, state, blockers in (*shards, *merge, *layers, *bank):
        session.add(
            WorkRow(
                job_id=job.id,
                stage=stage,
                scope=scope,
                ordinal=ordinal,
                state=state,
                blockers=blockers,
            )
        )
        tally.add(job.id, states.counter_name(stage, scope), state)
    tally.write()
    return job


def find_job(session: Session, tenant: str, job_id: str, *, lock: bool = False) -> JobRow:
    """A job of a tenant; the newest one for an empty id.

    Raises:
        NotFound: There is no such job.
    """
    found = (JobRow.tenant == tenant, JobRow.deleted_at == 0)
    statement = select(JobRow).where(*found).order_by(JobRow.id.desc()).limit(1)
    if job_id:
        statement = statement.where(JobRow.id == job_id)
    if lock:
        statement = statement.with_for_update()
    job = session.scalars(statement).one_or_none()
    if job is None:
        raise NotFound(
            f"There is no job {job_id!r}: `dnd jobs` lists what there is."
            if job_id
            else "There is no job yet."
        )
    return job


def list_jobs(session: Session, tenant: str, before: str, limit: int) -> list[JobRow]:
    """Jobs of a tenant with their specs, newest first, older than the id `before` if given."""
    statement = select(JobRow).where(JobRow.tenant == tenant, JobRow.deleted_at == 0)
    statement = statement.options(undefer(JobRow.spec))
    if before:
        statement = statement.where(JobRow.id < before)
    return list(session.scalars(statement.order_by(JobRow.id.desc()).limit(limit)))


def last_digests(session: Session) -> dict[str, str]:
    """The weights that the newest jobs were frozen to, by service."""
    statement = select(JobRow.frozen).order_by(JobRow.id.desc()).limit(_RECENT_JOBS)
    found: dict[str, str] = {}
    for frozen in session.scalars(statement):
        for name, digest in frozen["digests"].items():
            found.setdefault(name, digest)
    return found


def pause_job(session: Session, job: JobRow) -> None:
    """No new work starts. Raises FailedPrecondition for a job that has ended."""
    expect_state(job, "paused", JobState.RUNNING, JobState.PAUSED)
    job.state = JobState.PAUSED.value


def resume_job(session: Session, job: JobRow, now: float, limits: Limits | None = None) -> None:
    """Goes on, and looks at once whether stages that were held back work again.

    Args:
        limits: New limits; those that are 0 stay as they are.

    Raises:
        FailedPrecondition: The job has ended, or a limit of it is still reached.
    """
    expect_state(job, "resumed", JobState.RUNNING, JobState.PAUSED)
    raised = limits_of(job).raised_by(limits or Limits())
    if reached := raised.reached(read_usage(session, [job.id])[job.id]):
        raise FailedPrecondition(f"Job {job.id} has used {reached}: give a higher limit.")
    job.limits = asdict(raised)
    job.pause_reason = ""
    job.state = JobState.RUNNING.value
    probe_soon(session, job.id, now)


def cancel_job(session: Session, job: JobRow, now: float) -> None:
    """Ends a job for good: one flag; what its units are then is read from it."""
    if job.state == JobState.CANCELLED.value:
        return
    expect_state(job, "cancelled", JobState.RUNNING, JobState.PAUSED)
    job.state = JobState.CANCELLED.value
    job.ended_at = now
    drop_waits(session, job.id)


def retry_job(session: Session, job: JobRow, now: float) -> None:
    """Runs what has failed again, from the stage where it failed.

    Raises:
        FailedPrecondition: The job has not ended, was cancelled, or nothing of it has failed.
    """
    expect_state(job, "tried again", JobState.COMPLETED, JobState.FAILED)
    failed = list(
        session.scalars(
            select(WorkRow)
            .where(WorkRow.job_id == job.id, WorkRow.state == states.FAILED)
            .order_by(WorkRow.id)
            .with_for_update()
        )
    )
    if not failed:
        raise FailedPrecondition(f"Nothing of job {job.id} has failed: there is nothing to retry.")
    tally = Tally(session)
    of_units = [work for work in failed if work.scope == states.UNITS]
    units = _reopen_units(session, tally, job, of_units)
    needed = {w.ordinal: _sets_needed(units[w.ordinal], w.stage) for w in of_units}
    waits = reopen_sets(session, tally, job.id, needed)
    bank_open = _reopen_bank(session, tally, job.id)
    for work in failed:
        if work.scope == states.BANK:
            continue
        work.blockers = waits.get(work.ordinal, 0) if work.scope == states.UNITS else 0
        work.blockers += bank_open and work.stage == "calibrate"
        tally.move(work, states.BLOCKED if work.blockers else states.READY)
        work.attempts = work.losses = 0
        work.not_before = 0.0
        work.error = ""
    if of_units:
        _block_comparisons(session, tally, job.id)
    tally.write()
    job.state = JobState.RUNNING.value
    job.error = ""
    job.ended_at = 0.0
    probe_soon(session, job.id, now)


def _sets_needed(unit: UnitRow, stage: str) -> list[int]:
    """Ids of the image sets that a stage of a unit works on."""
    if stage == "calibrate":
        return [unit.fresh_set_id] if unit.fresh_set_id else []
    return unit.set_ids if stage == "score" else []


def _reopen_bank(session: Session, tally: Tally, job_id: str) -> bool:
    """Draws and measures a bank again that is not there; whether units must wait for it."""
    bank = find_bank(session, job_id)
    if bank is None or bank.state == states.DONE:
        return False
    if bank.state not in states.IN_FLIGHT:
        bank.blockers = reopen_bank(session, tally, job_id)
        tally.move(bank, states.BLOCKED if bank.blockers else states.READY)
        bank.attempts = bank.losses = 0
        bank.not_before = 0.0
        bank.error = ""
    return True


def _reopen_units(
    session: Session, tally: Tally, job: JobRow, works: Sequence[WorkRow]
) -> dict[int, UnitRow]:
    """The units of failed work, pending again at its stage."""
    units = {}
    stage_of = {work.ordinal: work.stage for work in works}
    ordinals = sorted(stage_of)
    for start in range(0, len(ordinals), 500):
        for unit in session.scalars(
            select(UnitRow).where(
                UnitRow.job_id == job.id, UnitRow.ordinal.in_(ordinals[start : start + 500])
            )
        ):
            units[unit.ordinal] = unit
            tally.add(job.id, UNIT, unit.state, -1)
            tally.add(job.id, UNIT, UnitState.PENDING.value)
            unit.state = UnitState.PENDING.value
            unit.stage = stage_of[unit.ordinal]
            unit.error = ""
    job.num_ended -= len(units)
    return units


def _block_comparisons(session: Session, tally: Tally, job_id: str) -> None:
    """The labels change, so they are compared again after the last unit."""
    for work in session.scalars(
        select(WorkRow).where(
            WorkRow.job_id == job_id, WorkRow.stage == "score", WorkRow.scope == states.LAYER
        )
    ):
        tally.move(work, states.BLOCKED)
        work.attempts = work.losses = 0


def expect_state(job: JobRow, what: str, *allowed: JobState) -> None:
    """Raises FailedPrecondition unless a job is in one of some states."""
    if job.state not in [state.value for state in allowed]:
        raise FailedPrecondition(
            f"Job {job.id} is {job.state} and cannot be {what}: expected it to be "
            f"{' or '.join(state.value for state in allowed)}."
        )
