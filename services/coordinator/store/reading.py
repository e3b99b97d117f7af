"""What callers see of a job: its progress, and its units in order, with or without rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from dnd import profiles
from dnd.errors import NotFound
from dnd.jobs import STAGES, JobState, Method, StageCount, UnitState, Usage
from dnd_services.coordinator import states
from dnd_services.coordinator.frozen import method_of
from dnd_services.coordinator.models import CounterRow, JobLayerRow, JobRow, UnitRow
from dnd_services.coordinator.store.counters import SETTLED, UNIT, Counters, read_counters_of
from dnd_services.coordinator.store.health import ALL_JOBS, Pause, read_pauses, read_times
from dnd_services.coordinator.store.leases import read_capacity
from dnd_services.coordinator.store.rows import ordinal_of, units_between
from dnd_services.coordinator.store.spending import usage_in

UNMEASURED_S = 1.0
"""What an item is thought to take before the first of its stage and profile was measured."""


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        units: Units by state; those without rows are counted too.
        stages: One for each stage, in order.
        pause_reason: Why it, or one of its stages, is held back.
        used: What it has used.
    """

    units: dict[UnitState, int]
    stages: tuple[StageCount, ...]
    pause_reason: str
    used: Usage


@dataclass(frozen=True)
class UnitView:
    """A unit of a job; `row` is None while nothing has been written about it."""

    layer: str
    unit: int
    ordinal: int
    state: UnitState
    row: UnitRow | None


@dataclass(frozen=True)
class _Hindrances:
    """What may hold stages back, of any job.

    Attributes:
        capacity: Threads of live workers by stage.
    """

    now: float
    pauses: Sequence[Pause]
    capacity: Mapping[str, int]


def read_progress(
    session: Session, jobs: Sequence[JobRow], now: float, silent_s: float
) -> list[Progress]:
    """How far each of some jobs is, from their counters alone."""
    counters = read_counters_of(session, [job.id for job in jobs])
    times = read_times(session)
    hindrances = _Hindrances(now, (), {})
    if not all(JobState(job.state).ended for job in jobs):
        capacity = read_capacity(session, now, silent_s)
        hindrances = _Hindrances(now, read_pauses(session), capacity)
    return [_progress(job, counters[job.id], times, hindrances) for job in jobs]


def _progress(
    job: JobRow,
    counters: Counters,
    times: Mapping[tuple[str, str], float],
    hindrances: _Hindrances,
) -> Progress:
    units = {UnitState(state): num for state, num in counters.get(UNIT, {}).items() if num}
    pending = job.num_units - sum(n for s, n in units.items() if s is not UnitState.PENDING)
    units.pop(UnitState.PENDING, None)
    if pending:
        unended = state_of_unended(job)
        units[unended] = units.get(unended, 0) + pending
    return Progress(
        units={state: units[state] for state in UnitState if units.get(state)},
        stages=tuple(_count_stages(job, counters, times)),
        pause_reason=_why_held_back(job, counters, hindrances),
        used=usage_in(counters),
    )


def _count_stages(
    job: JobRow, counters: Counters, times: Mapping[tuple[str, str], float]
) -> Iterator[StageCount]:
    ended = JobState(job.state).ended
    expected = _num_described(job, counters)
    expected_at = {
        "index": job.num_shards,
        "dissect": sum(counters.get("dissect", {}).values()),
    }
    for stage in ("exemplars", "caption", "summarize"):
        expected_at[stage] = expected
        here = counters.get(stage, {})
        expected -= here.get(states.FAILED, 0) + here.get(SETTLED, 0)
    to_summarise = expected_at["summarize"] - counters.get("summarize", {}).get(states.FAILED, 0)
    expected_at["score"] = expected
    expected -= counters.get("score", {}).get(states.FAILED, 0)
    expected_at["calibrate"] = expected
    expected_at["synthesize"] = _expect_sets(
        counters, to_summarise, expected if job.frozen.get("bank") else 0
    )
    for stage in STAGES:
        if stage == "calibrate" and not job.frozen.get("bank"):
            continue
        here = counters.get(stage, {})
        if stage == "synthesize":
            here = _all_sets(counters)
        yield StageCount(
            stage=stage,
            num_done=here.get(states.DONE, 0),
            num_open=0 if ended else sum(here.get(state, 0) for state in states.OPEN),
            num_failed=here.get(states.FAILED, 0),
            num_total=expected_at[stage],
            item_s=times.get((stage, job.profile), 0.0),
        )


def _all_sets(counters: Counters) -> Counter[str]:
    """Image sets of candidates, of the bank and of labels together, by state."""
    together: Counter[str] = Counter()
    for scope in (states.PROMPTS, states.BANK, states.FRESH):
        together.update(counters.get(states.counter_name("synthesize", scope), {}))
    return together


def _expect_sets(counters: Counters, num_to_draw_for: int, num_to_calibrate: int) -> int:
    """Image sets of a job in the end, by those asked for so far; 0 before the first are."""
    num_summarised = counters.get("summarize", {}).get(states.DONE, 0)
    if not num_summarised:
        return 0
    num_scored = counters.get("score", {}).get(states.DONE, 0)
    candidates, bank, fresh = (
        sum(counters.get(states.counter_name("synthesize", scope), {}).values())
        for scope in (states.PROMPTS, states.BANK, states.FRESH)
    )
    fresh_each = fresh / num_scored if num_scored else 1.0
    return round(
        bank + candidates / num_summarised * num_to_draw_for + fresh_each * num_to_calibrate
    )


def _num_described(job: JobRow, counters: Counters) -> int:
    """Units that DnD describes, as far as that is known."""
    num_live = max(job.num_live, 0)
    if method_of(job) is Method.CLIP_DISSECT:
        return 0
    if method_of(job) is Method.DND:
        return num_live
    if job.next_ordinal == job.num_units:
        return sum(n for s, n in counters.get("exemplars", {}).items() if s != SETTLED)
    return min(num_live, profiles.from_json(job.frozen["profile"]).dissect.budget)


def _why_held_back(job: JobRow, counters: Counters, hindrances: _Hindrances) -> str:
    if JobState(job.state).ended:
        return ""
    paused = job.state == JobState.PAUSED.value
    reasons = [job.pause_reason or "Paused by its owner."] if paused else []
    for pause in hindrances.pauses:
        if pause.job_id in (ALL_JOBS, job.id):
            wait_s = max(pause.probe_at - hindrances.now, 0.0)
            reasons.append(
                f"Stage {pause.stage} is held back: {pause.reason} (next try in {wait_s:.0f} s)"
            )
    for stage in STAGES:
        waiting = any(
            num_in.get(states.READY, 0) > 0
            for name, num_in in counters.items()
            if name.split(":")[0] == stage
        )
        if waiting and not hindrances.capacity.get(stage):
            reasons.append(f"No worker of stage {stage} is running.")
    return " ".join(reasons)


def read_backlog(session: Session) -> dict[str, float]:
    """Estimated seconds of work that waits or is under way, by stage: what scaling goes by.

    An item of a stage that was never measured counts as `UNMEASURED_S`, so that its first worker
    is started at all.
    """
    times = read_times(session)
    backlog = dict.fromkeys(STAGES, 0.0)
    for (stage, profile), num in _open_items(session).items():
        backlog[stage] += num * times.get((stage, profile), UNMEASURED_S)
    return backlog


def read_open_items(session: Session) -> dict[str, int]:
    """Items that wait or are under way, by stage."""
    items = dict.fromkeys(STAGES, 0)
    for (stage, _), num in _open_items(session).items():
        items[stage] += num
    return items


def _open_items(session: Session) -> Counter[tuple[str, str]]:
    """Open items of running jobs by stage and profile."""
    running = select(JobRow.id, JobRow.profile).where(JobRow.state == JobState.RUNNING.value)
    profiles = {row.id: row.profile for row in session.execute(running)}
    statement = select(CounterRow).where(
        CounterRow.job_id.in_(list(profiles)), CounterRow.state.in_(states.OPEN)
    )
    items: Counter[tuple[str, str]] = Counter()
    for row in session.scalars(statement):
        items[row.name.split(":")[0], profiles[row.job_id]] += row.num
    return items


def state_of_unended(job: JobRow) -> UnitState:
    """What a unit is that has not ended, given its job: cancelling a job is one flag."""
    if job.state == JobState.CANCELLED.value:
        return UnitState.CANCELLED
    return UnitState.FAILED if job.state == JobState.FAILED.value else UnitState.PENDING


def read_layers(session: Session, job_id: str) -> list[JobLayerRow]:
    """The layers of a job, in its order."""
    statement = select(JobLayerRow).where(JobLayerRow.job_id == job_id).order_by(JobLayerRow.place)
    return list(session.scalars(statement))


def find_unit(session: Session, job: JobRow, layer_path: str, unit: int) -> UnitView:
    """One unit.

    Raises:
        NotFound: The job does not have it.
    """
    layers = read_layers(session, job.id)
    layer = next((one for one in layers if one.layer == layer_path), None)
    if layer is None:
        names = ", ".join(one.layer for one in layers)
        raise NotFound(f"Job {job.id} has no layer {layer_path!r}: its layers are {names}.")
    ordinal = ordinal_of(layer, unit)
    if ordinal is None:
        raise NotFound(f"Job {job.id} has no unit {unit} of layer {layer_path!r}.")
    return view_unit(job, layer, unit, ordinal, session.get(UnitRow, (job.id, ordinal)))


def list_units(
    session: Session,
    job: JobRow,
    layer_path: str,
    state: UnitState | None,
    start: int,
    limit: int,
    *,
    where: Sequence[ColumnElement[bool]] = (),
) -> list[UnitView]:
    """Units from ordinal `start` on, in the job's order, of one layer and state or of all.

    Args:
        where: What must be so of a unit's row; units without a row are then left out.

    Raises:
        NotFound: The job does not have the layer.
    """
    layers = read_layers(session, job.id)
    chosen = [one for one in layers if not layer_path or one.layer == layer_path]
    if not chosen:
        names = ", ".join(one.layer for one in layers)
        raise NotFound(f"Job {job.id} has no layer {layer_path!r}: its layers are {names}.")
    views: list[UnitView] = []
    for layer in chosen:
        first = max(start, layer.first_ordinal)
        views += _units_of_layer(session, job, layer, state, first, limit - len(views), where)
        if len(views) >= limit:
            break
    return views


def _units_of_layer(
    session: Session,
    job: JobRow,
    layer: JobLayerRow,
    state: UnitState | None,
    first: int,
    limit: int,
    where: Sequence[ColumnElement[bool]],
) -> list[UnitView]:
    last = layer.first_ordinal + layer.num_units
    written_until = min(max(job.next_ordinal, first), last)
    rows = _rows_between(session, job, state, first, written_until, limit, where)
    views = [view_unit(job, layer, row.unit, row.ordinal, row) for row in rows]
    if not where and state in (None, state_of_unended(job)) and len(views) < limit:
        stop = min(last, written_until + limit - len(views))
        for ordinal, unit in units_between(layer, written_until, stop):
            views.append(view_unit(job, layer, unit, ordinal, None))
    return views


def _rows_between(
    session: Session,
    job: JobRow,
    state: UnitState | None,
    first: int,
    last: int,
    limit: int,
    where: Sequence[ColumnElement[bool]],
) -> Sequence[UnitRow]:
    statement = (
        select(UnitRow)
        .where(UnitRow.job_id == job.id, UnitRow.ordinal >= first, UnitRow.ordinal < last, *where)
        .order_by(UnitRow.ordinal)
        .limit(limit)
    )
    if state is not None:
        stored = {state.value}
        if state is state_of_unended(job):
            stored.add(UnitState.PENDING.value)
        elif state is UnitState.PENDING:
            return []
        statement = statement.where(UnitRow.state.in_(sorted(stored)))
    return session.scalars(statement).all()


def view_unit(
    job: JobRow, layer: JobLayerRow, unit: int, ordinal: int, row: UnitRow | None
) -> UnitView:
    """A unit of a job, with or without a row."""
    state = UnitState.PENDING if row is None else UnitState(row.state)
    if state is UnitState.PENDING:
        state = state_of_unended(job)
    return UnitView(layer.layer, unit, ordinal, state, row)
