"""The units that two jobs have in common, side by side: two methods, or two checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, or_, select
from sqlalchemy.orm import Session, aliased

from dnd_services.coordinator.models import JobLayerRow, JobRow, UnitRow
from dnd_services.coordinator.store.reading import UnitView, view_unit

CHANGES = {
    "changed": "units whose label differs",
    "same": "units with the same label",
    "": "all units of both",
}
_FIRST, _SECOND = aliased(UnitRow), aliased(UnitRow)
_FIRST_LAYER, _SECOND_LAYER = aliased(JobLayerRow), aliased(JobLayerRow)


@dataclass(frozen=True)
class Agreement:
    """How the labels of two jobs agree on the units that both have rows of.

    Attributes:
        num_units: Units of both.
        num_labels: Units with a label in both.
        num_same: Of them, with the same first label.
        num_first: Units with a label in the first job only.
        num_second: Units with a label in the second job only.
    """

    num_units: int
    num_labels: int
    num_same: int
    num_first: int
    num_second: int


def count_agreement(session: Session, first: JobRow, second: JobRow) -> Agreement:
    """How the labels of two jobs agree."""
    one, other = _label(_FIRST), _label(_SECOND)

    def count(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)

    counts = _joined(first, second).with_only_columns(
        func.count(),
        count(and_(one.is_not(None), other.is_not(None))),
        count(one == other),
        count(and_(one.is_not(None), other.is_(None))),
        count(and_(one.is_(None), other.is_not(None))),
    )
    return Agreement(*map(int, session.execute(counts).one()))


def pair_units(
    session: Session, first: JobRow, second: JobRow, changes: str, start: int, limit: int
) -> tuple[list[tuple[UnitView, UnitView]], int]:
    """Units of both jobs in the first job's order, and how many there are.

    Args:
        changes: A key of `CHANGES`: which of them.
        start: Place of the first one to answer.
        limit: Units to answer at most.
    """
    one, other = _label(_FIRST), _label(_SECOND)
    joined = _joined(first, second)
    if changes == "changed":
        lost = and_(one.is_(None), other.is_not(None))
        gained = and_(one.is_not(None), other.is_(None))
        joined = joined.where(or_(one != other, lost, gained))
    elif changes == "same":
        joined = joined.where(one == other)
    total = session.scalar(joined.with_only_columns(func.count())) or 0
    rows = session.execute(joined.order_by(_FIRST.ordinal).offset(start).limit(limit))
    pairs = [
        (
            view_unit(first, layer, left.unit, left.ordinal, left),
            view_unit(second, other_layer, right.unit, right.ordinal, right),
        )
        for layer, other_layer, left, right in rows
    ]
    return pairs, total


def _label(unit: type[UnitRow]) -> ColumnElement[Any]:
    """The first label of a unit; NULL for none."""
    first: ColumnElement[Any] = unit.labels[0].as_string()
    return first


def _joined(first: JobRow, second: JobRow) -> Select[JobLayerRow, JobLayerRow, UnitRow, UnitRow]:
    """Layers and units of both jobs that have the same names and numbers."""
    return (
        select(_FIRST_LAYER, _SECOND_LAYER, _FIRST, _SECOND)
        .join(_SECOND_LAYER, _SECOND_LAYER.layer == _FIRST_LAYER.layer)
        .join(
            _FIRST,
            and_(_FIRST.job_id == _FIRST_LAYER.job_id, _FIRST.place == _FIRST_LAYER.place),
        )
        .join(
            _SECOND,
            and_(
                _SECOND.job_id == _SECOND_LAYER.job_id,
                _SECOND.place == _SECOND_LAYER.place,
                _SECOND.unit == _FIRST.unit,
            ),
        )
        .where(_FIRST_LAYER.job_id == first.id, _SECOND_LAYER.job_id == second.id)
    )
