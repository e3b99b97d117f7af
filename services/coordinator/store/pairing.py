"""The units that two jobs have in common, side by side: two methods, or two checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, or_, select
from sqlalchemy.orm import Session, aliased

from dnd_services.coordinator.models import JobLayerRow, JobRow, UnitRow
from dnd_services.coordinator.store.reading import UnitView, read_layers, view_unit

CHANGES = {
    "changed": "units whose label differs",
    "same": "units with the same label",
    "": "all units of both",
}
_FIRST, _SECOND = aliased(UnitRow), aliased(UnitRow)


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

    joined, _ = _joined(session, first, second)
    counts = joined.with_only_columns(
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
    joined, layers = _joined(session, first, second)
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
            view_unit(first, layers[left.place][0], left.unit, left.ordinal, left),
            view_unit(second, layers[left.place][1], right.unit, right.ordinal, right),
        )
        for left, right in rows
    ]
    return pairs, total


def _label(unit: type[UnitRow]) -> ColumnElement[Any]:
    """The first label of a unit; NULL for none."""
    first: ColumnElement[Any] = unit.labels[0].as_string()
    return first


def _joined(
    session: Session, first: JobRow, second: JobRow
) -> tuple[Select[UnitRow, UnitRow], dict[int, tuple[JobLayerRow, JobLayerRow]]]:
    """Units of both jobs that have the same layer and number, and their layers by place.

    The second's place follows from the first's, so that a database looks its unit up by the unique
    key: over a join of the layers SQLite compares every unit with every other.
    """
    others = {layer.layer: layer for layer in read_layers(session, second.id)}
    layers = {
        layer.place: (layer, others[layer.layer])
        for layer in read_layers(session, first.id)
        if layer.layer in others
    }
    place: ColumnElement[Any] = literal(-1)
    if layers:
        places = {own: other.place for own, (_, other) in layers.items()}
        place = case(places, value=_FIRST.place, else_=-1)
    same = and_(_SECOND.job_id == second.id, _SECOND.place == place, _SECOND.unit == _FIRST.unit)
    return select(_FIRST, _SECOND).join(_SECOND, same).where(_FIRST.job_id == first.id), layers
