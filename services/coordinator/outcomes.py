"""What came of work: a result or an error for each row of a group, and the report that is written.

Handlers make outcomes, `writing.py` brings them into the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dnd.types import OrError
from dnd_services.coordinator.store.steps import MergedLayer, UnitStep


@dataclass(frozen=True)
class ShardIndexed:
    """A shard of the index."""

    ref: str


@dataclass(frozen=True)
class ShardsMerged:
    """The index of all layers of a job."""

    layers: tuple[MergedLayer, ...]


@dataclass(frozen=True)
class SharedResult:
    """What jobs share that is of no unit.

    Attributes:
        key: What the output is found by again (`reuse.py`); empty if it is not.
        reused: Whether it was found so.
    """

    ref: str
    key: str = ""
    reused: bool = False


class LayerDissected(SharedResult):
    """The labels of a layer from the concept set; "" for a layer without a live unit."""


@dataclass(frozen=True)
class SetDrawn:
    """The drawings of a prompt."""

    images: tuple[str, ...]


class BankMeasured(SharedResult):
    """The bank of a job, measured for its layers."""


@dataclass(frozen=True)
class LabelsCompared:
    """The units of a layer have their AUC; None where there is nothing to compare with."""


Result: TypeAlias = (
    UnitStep
    | ShardIndexed
    | ShardsMerged
    | LayerDissected
    | SetDrawn
    | BankMeasured
    | LabelsCompared
)
Outcome: TypeAlias = OrError[Result]


@dataclass(frozen=True)
class Report:
    """What came of a group.

    Attributes:
        outcomes: One for each row, in order.
        failed_whole: The call failed as a whole: its error says nothing about any single row.
        started_at: When the work began, by the store's clock.
        seconds: What it took.
    """

    outcomes: Sequence[Outcome]
    failed_whole: bool
    started_at: float
    seconds: float
