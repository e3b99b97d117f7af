"""How long a job would take with other numbers of replicas, from the times that were measured.

Units go through the stages in tasks; a stage works on as many tasks at a time as its service has
replicas, a task takes the measured time of its items, and the next stage gets its units when it
ends. What the coordinator itself takes is not in it (docs/scaling.md).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from dnd.errors import FailedPrecondition, InvalidInput
from dnd.jobs import StageLoad

TARGET_TASK_S = 20.0
MIN_TASK_ITEMS, MAX_TASK_ITEMS = 4, 512
MAX_REPLICAS = 10_000
_BEFORE = ("index", "dissect")


@dataclass(frozen=True)
class Simulated:
    """A simulated job.

    Attributes:
        duration_s: From its creation to its end, seconds.
        busy: Share of that time that each stage's replicas work.
    """

    duration_s: float
    busy: dict[str, float]

    @property
    def limit(self) -> str:
        """The stage that the others wait for most."""
        return max(self.busy, key=lambda stage: self.busy[stage])


def simulate(
    loads: Sequence[StageLoad], num_units: int, replicas: Mapping[str, int] | None = None
) -> Simulated:
    """A job of `num_units`, whose work by stage is `loads`, on other numbers of replicas.

    Args:
        replicas: Stage to number of replicas; the others have as many as were measured.

    Raises:
        FailedPrecondition: A stage has not been measured yet.
        InvalidInput: There is no such stage, or a number is not positive.
    """
    lines = [_line_of(load) for load in _with_replicas(loads, replicas or {})]
    before = [line for line in lines if line.stage in _BEFORE]
    lines = [line for line in lines if line.stage not in _BEFORE]
    started_s = sum(line.work_s / line.replicas for line in before)
    worked_s = dict.fromkeys((line.stage for line in lines), 0.0)
    ended_s = _run(lines, num_units, worked_s) if num_units and lines else 0.0
    duration_s = started_s + ended_s
    busy = {line.stage: worked_s[line.stage] / line.replicas for line in lines}
    busy |= {line.stage: line.work_s / line.replicas for line in before}
    return Simulated(
        duration_s, {stage: s / duration_s if duration_s else 0.0 for stage, s in busy.items()}
    )


def fewest_replicas(
    loads: Sequence[StageLoad],
    num_units: int,
    stage: str,
    within_s: float,
    replicas: Mapping[str, int] | None = None,
) -> int | None:
    """The smallest number of replicas of `stage` that ends the job in time; None if none does."""

    def is_enough(num: int) -> bool:
        fixed = {**(replicas or {}), stage: num}
        return simulate(loads, num_units, fixed).duration_s <= within_s

    high = 1
    while not is_enough(high):
        high *= 2
        if high > MAX_REPLICAS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


@dataclass(frozen=True)
class StageSize:
    """What a stage needs for a job.

    Attributes:
        item_s: Time of an item on one replica, seconds.
        work_s: Time of all items on one replica, seconds.
        replicas: The fewest that end them in time if they are never idle.
    """

    stage: str
    num_items: float
    item_s: float
    work_s: float
    replicas: int


def size_stages(loads: Sequence[StageLoad], within_s: float) -> list[StageSize]:
    """The replicas of each stage for a job that is to end within `within_s`.

    At least so many: stages wait for each other at the start and at the end of a job, which
    `simulate` has in it.

    Raises:
        FailedPrecondition: A stage has not been measured yet.
    """
    lines = [_line_of(load) for load in _with_replicas(loads, {})]
    return [
        StageSize(
            one.stage, one.num_items, one.item_s, one.work_s, max(1, ceil(one.work_s / within_s))
        )
        for one in lines
        if one.num_items
    ]


@dataclass
class _Line:
    """A stage as it is simulated.

    Attributes:
        item_s: Time of an item on a replica that works on nothing else, seconds.
        waiting: Units that have come so far.
        free: Replicas that do nothing.
    """

    stage: str
    items_a_unit: float
    item_s: float
    replicas: int
    num_items: float
    waiting: int = 0
    free: int = 0

    @property
    def work_s(self) -> float:
        return self.num_items * self.item_s

    def task_units(self) -> int:
        """Units of the next task: spread over the replicas, and no longer than a task may be."""
        if not self.items_a_unit:
            return self.waiting
        most = min(MAX_TASK_ITEMS, max(MIN_TASK_ITEMS, int(TARGET_TASK_S / max(self.item_s, 1e-9))))
        waiting_items = self.waiting * self.items_a_unit
        items = min(most, max(MIN_TASK_ITEMS, ceil(waiting_items / (2 * self.replicas))))
        return max(1, min(self.waiting, round(items / self.items_a_unit)))


def _with_replicas(
    loads: Sequence[StageLoad], replicas: Mapping[str, int]
) -> list[tuple[StageLoad, int]]:
    known = {load.stage for load in loads}
    for stage, num in replicas.items():
        if stage not in known:
            raise InvalidInput(f"There is no stage {stage!r} in this job: it has {sorted(known)}.")
        if num < 1:
            raise InvalidInput(f"{num} replicas of stage {stage}: expected at least 1.")
    return [(load, replicas.get(load.stage, max(load.num_replicas, 1))) for load in loads]


def _line_of(pair: tuple[StageLoad, int]) -> _Line:
    """As many threads as there are share the replicas: together they are as fast as measured."""
    load, num = pair
    if load.num_items and not load.item_s:
        raise FailedPrecondition(
            f"Stage {load.stage} has not been measured yet: run a small job with the same profile "
            "first."
        )
    item_s = load.item_s * max(load.num_replicas, 1) / max(load.num_threads, 1)
    return _Line(load.stage, load.num_items, item_s, num, load.num_items)


def _run(lines: list[_Line], num_units: int, worked_s: dict[str, float]) -> float:
    """Sends the units through the lines; when the last one has left, seconds."""
    lines = [
        replace(line, items_a_unit=line.num_items / num_units, free=line.replicas) for line in lines
    ]
    lines[0].waiting = num_units
    tasks: list[tuple[float, int, int]] = []
    now = 0.0
    touched = {0}
    while True:
        for place in touched:
            line = lines[place]
            while line.waiting and line.free:
                num = line.task_units()
                seconds = num * line.items_a_unit * line.item_s
                line.waiting -= num
                line.free -= 1
                worked_s[line.stage] += seconds
                heapq.heappush(tasks, (now + seconds, place, num))
        if not tasks:
            return now
        now, place, num = heapq.heappop(tasks)
        lines[place].free += 1
        touched = {place}
        if place + 1 < len(lines):
            lines[place + 1].waiting += num
            touched.add(place + 1)
