"""Labels of two jobs side by side: of two methods, or of two checkpoints of a network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dnd.jobs import UnitResult


@dataclass(frozen=True)
class UnitDiff:
    """A unit that both jobs have.

    Attributes:
        before: In the first job.
        after: In the second job.
    """

    before: UnitResult
    after: UnitResult

    @property
    def is_same(self) -> bool:
        """Whether both have the same best label, or both have none for the same reason."""
        if self.before.labels and self.after.labels:
            return self.before.labels[0] == self.after.labels[0]
        none = not self.before.labels and not self.after.labels
        return none and self.before.state is self.after.state


@dataclass(frozen=True)
class LabelDiff:
    """What two jobs say of the same units.

    Attributes:
        units: Those that both have, in the order of the first job.
        num_only_before: Units that only the first job has.
        num_only_after: Units that only the second job has.
    """

    units: tuple[UnitDiff, ...]
    num_only_before: int
    num_only_after: int

    @property
    def changed(self) -> tuple[UnitDiff, ...]:
        """Units with other labels, or with a label in one job only."""
        return tuple(one for one in self.units if not one.is_same)


def diff_labels(before: Iterable[UnitResult], after: Iterable[UnitResult]) -> LabelDiff:
    """Compares the units of two jobs by layer and number; no record is needed."""
    second = {(unit.layer, unit.unit): unit for unit in after}
    num_after = len(second)
    pairs = []
    num_before = 0
    for unit in before:
        num_before += 1
        if other := second.get((unit.layer, unit.unit)):
            pairs.append(UnitDiff(unit, other))
    return LabelDiff(tuple(pairs), num_before - len(pairs), num_after - len(pairs))
