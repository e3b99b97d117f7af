"""Deleting jobs: hidden at once, their rows removed some at a time."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Delete, delete, func, select
from sqlalchemy.orm import Session

from dnd.jobs import JobState
from dnd_services.coordinator import states
from dnd_services.coordinator.models import (
    JOB_DELETED,
    CounterRow,
    ImageSetRow,
    JobLayerRow,
    JobRow,
    JobSetRow,
    SetWaitRow,
    StagePauseRow,
    UnitRow,
    WorkRow,
)
from dnd_services.coordinator.store.jobs import expect_state

_OF_JOB = (CounterRow, JobLayerRow, SetWaitRow, StagePauseRow)


def delete_job(session: Session, job: JobRow, now: float) -> None:
    """From now on nobody finds the job any more, and its request id is free again.

    Raises:
        FailedPrecondition: The job has not ended.
    """
    expect_state(job, "deleted", *(state for state in JobState if state.ended))
    job.state = JobState.CANCELLED.value  # what is under way is dropped as that of such a job is
    job.deleted_at = now
    job.request_id = f"deleted:{job.id}"


def deleted_jobs(session: Session) -> list[str]:
    """Jobs that have been deleted and still have rows."""
    return list(session.scalars(select(JobRow.id).where(JOB_DELETED).order_by(JobRow.id)))


def purge_rows(session: Session, job_id: str, limit: int) -> int:
    """Removes rows of a deleted job, `limit` of each table at most; answers how many.

    Image sets go with the last job that needs them. What a worker still holds stays until it is
    written or its lease is over, and the job's own row goes last.
    """
    set_ids = _settled_sets(session, job_id, limit)
    num_rows = len(set_ids)
    session.execute(
        delete(JobSetRow).where(JobSetRow.job_id == job_id, JobSetRow.set_id.in_(set_ids))
    )
    session.flush()
    # A second look, at what others have committed while the sets were being locked.
    needed = select(JobSetRow.set_id).where(JobSetRow.set_id.in_(set_ids))
    session.execute(
        delete(ImageSetRow).where(ImageSetRow.id.in_(set_ids), ImageSetRow.id.not_in(needed))
    )
    works = (
        select(WorkRow.id)
        .where(WorkRow.job_id == job_id, WorkRow.state != states.RUNNING)
        .limit(limit)
    )
    num_rows += _delete(session, delete(WorkRow).where(WorkRow.id.in_(works)))
    ordinals = select(UnitRow.ordinal).where(UnitRow.job_id == job_id).limit(limit)
    of_job = delete(UnitRow).where(UnitRow.job_id == job_id)
    num_rows += _delete(session, of_job.where(UnitRow.ordinal.in_(ordinals)))
    if not num_rows and not _has_rows(session, job_id):
        for table in _OF_JOB:
            session.execute(delete(table).where(table.job_id == job_id))
        session.execute(delete(JobRow).where(JobRow.id == job_id))
    return num_rows


def _settled_sets(session: Session, job_id: str, limit: int) -> Sequence[int]:
    """Image sets of a job that nobody works on, locked."""
    statement = (
        select(ImageSetRow.id)
        .join(JobSetRow, JobSetRow.set_id == ImageSetRow.id)
        .where(JobSetRow.job_id == job_id, ImageSetRow.state.not_in(states.IN_FLIGHT))
        .order_by(ImageSetRow.id)
        .limit(limit)
        .with_for_update(of=ImageSetRow)
    )
    return session.scalars(statement).all()


def _delete(session: Session, statement: Delete) -> int:
    """Executes a DELETE; answers how many rows that were."""
    return int(session.execute(statement).rowcount)  # type: ignore[attr-defined]


def _has_rows(session: Session, job_id: str) -> bool:
    return any(
        session.scalar(select(func.count()).select_from(table).where(table.job_id == job_id))
        for table in (JobSetRow, WorkRow, UnitRow)
    )
