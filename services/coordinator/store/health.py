"""How the stages are: measured times, services that do not answer, stages that are held back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from dnd_services.coordinator.models import StageAverageRow, StageHealthRow, StagePauseRow
from dnd_services.coordinator.store.bulk import insert_rows

_WEIGHT = 0.2
_MAX_DELAY_S = 300.0
ALL_JOBS = ""


@dataclass(frozen=True)
class Pause:
    """A stage that is held back: for one job, or with an empty job for all."""

    stage: str
    job_id: str
    reason: str
    probe_at: float


def record_time(session: Session, stage: str, profile: str, item_s: float, num: int) -> None:
    """Moves the average time of an item towards what a task has just taken per item."""
    row = session.get(StageAverageRow, (stage, profile), with_for_update=True)
    if row is None:
        new = {"stage": stage, "profile": profile, "item_s": item_s, "num_items": num}
        insert_rows(session, StageAverageRow, [new], ignore=True)
    else:
        row.item_s += _WEIGHT * (item_s - row.item_s)
        row.num_items += num


def read_times(session: Session) -> dict[tuple[str, str], float]:
    """Mean seconds of an item by (stage, profile)."""
    return {(r.stage, r.profile): r.item_s for r in session.scalars(select(StageAverageRow))}


def record_success(session: Session, stage: str, job_ids: Sequence[str]) -> bool:
    """The stage works: it is no longer down, and no longer paused. Whether that is news."""
    recovered = session.execute(
        update(StageHealthRow)
        .where(StageHealthRow.stage == stage, StageHealthRow.down_since > 0)
        .values(down_since=0.0)
    )
    resumed = session.execute(
        delete(StagePauseRow).where(
            StagePauseRow.stage == stage, StagePauseRow.job_id.in_([ALL_JOBS, *job_ids])
        )
    )
    return bool(recovered.rowcount or resumed.rowcount)  # type: ignore[attr-defined]


def record_silence(session: Session, stage: str, since: float) -> float:
    """A service did not answer; since when it has not, seconds since 1970."""
    row = session.get(StageHealthRow, stage, with_for_update=True)
    if row is None:
        session.add(StageHealthRow(stage=stage, down_since=since))
        return since
    if not row.down_since:
        row.down_since = since
    return row.down_since


def pause_stage(
    session: Session, stage: str, job_id: str, reason: str, now: float, first_delay_s: float
) -> None:
    """Holds a stage back; a probe that fails again makes the wait twice as long."""
    row = session.get(StagePauseRow, (stage, job_id), with_for_update=True)
    if row is None:
        session.add(
            StagePauseRow(
                stage=stage,
                job_id=job_id,
                reason=reason,
                since=now,
                probe_at=now + first_delay_s,
                delay_s=first_delay_s,
                is_probing=False,
            )
        )
        return
    row.reason = reason
    if row.is_probing:  # and not one of the tasks that were under way already
        row.is_probing = False
        row.delay_s = min(row.delay_s * 2, _MAX_DELAY_S)
        row.probe_at = now + row.delay_s


def postpone_probe(session: Session, stage: str, job_id: str, now: float) -> None:
    """A probe is on its way: the next one is not due before this one has had its time."""
    row = session.get(StagePauseRow, (stage, job_id), with_for_update=True)
    if row is not None:
        row.probe_at = now + row.delay_s
        row.is_probing = True


def probe_soon(session: Session, job_id: str, now: float) -> None:
    """Somebody says that it works again: probes what holds `job_id` back at once."""
    session.execute(
        update(StagePauseRow)
        .where(or_(StagePauseRow.job_id == ALL_JOBS, StagePauseRow.job_id == job_id))
        .values(probe_at=now)
    )


def read_pauses(session: Session) -> list[Pause]:
    """All stages that are held back."""
    statement = select(StagePauseRow).order_by(StagePauseRow.stage, StagePauseRow.job_id)
    return [Pause(r.stage, r.job_id, r.reason, r.probe_at) for r in session.scalars(statement)]
