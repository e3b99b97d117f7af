"""What the templates of the explorer are given beside jobs and records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dnd.explorer.links import Links, UnitQuery
from dnd.jobs import UnitState
from dnd.report.overview import STATES
from dnd.report.pictures import Kind, Level, Picture, largest_kinds
from dnd.report.units import shown_pictures

LEVEL = Level({Kind.DECILE: 96, Kind.DRAWING: 144, Kind.SOURCE: 320}, 82, 5, 99)
"""Sides of thumbnails on a unit's page: twice what they take up there, for sharp screens."""
SIDES = (96, 144, 320, 1024)
"""Of the pictures that a server makes; the last one opens when a thumbnail is clicked."""


@dataclass(frozen=True)
class Card:
    """A unit in a list.

    Attributes:
        second: The label after the first; empty for none.
        error: Why it failed; else empty.
        stage: Where it is, or where it failed; else empty.
        mosaic: Address of its exemplars; empty while it has none.
        true_class: Name of the class that it stands for; empty where there is none.
        hit: Whether the label agrees with that; None where either is missing.
        found: That of its labels which means most nearly what was searched; else empty.
        score: Cosine of that label and what was searched; None where nothing was.
    """

    layer: str
    unit: int
    state: str
    label: str
    second: str
    percentile: float | None
    auc: float | None
    error: str
    stage: str
    href: str
    mosaic: str
    true_class: str = ""
    hit: bool | None = None
    found: str = ""
    score: float | None = None


@dataclass(frozen=True)
class Segment:
    """A part of a bar: where it begins and how long it is, per cent."""

    name: str
    count: int
    start: float
    length: float


@dataclass(frozen=True)
class Bin:
    """Units with a percentile from `low` to `high`; `height` is 1 for the fullest bin."""

    low: float
    high: float
    count: int
    height: float


@dataclass(frozen=True)
class LayerCard:
    """A layer of a job: its units by state, and by percentile."""

    layer: str
    num_units: int
    states: tuple[Segment, ...]
    query: UnitQuery
    bins: tuple[Bin, ...]


def make_bins(counts: Sequence[int]) -> tuple[Bin, ...]:
    """Bins of equal width from 0 to 1; none if all are empty."""
    most = max(counts, default=0)
    if not most:
        return ()
    edges = [number / len(counts) for number in range(len(counts) + 1)]
    return tuple(
        Bin(edges[place], edges[place + 1], count, count / most)
        for place, count in enumerate(counts)
    )


def segments(counts: Mapping[UnitState, int]) -> tuple[Segment, ...]:
    """A bar of units by state, in the order of the report."""
    by_name = {state.value: num for state, num in counts.items() if num}
    total = sum(by_name.values())
    found, start = [], 0.0
    for name in STATES:
        if num := by_name.get(name, 0):
            length = 100 * num / total
            found.append(Segment(name, num, start, length))
            start += length
    return tuple(found)


class LinkedPictures:
    """The thumbnails of a unit's page, which lie elsewhere.

    Args:
        sizes: Width and height of the images that crops are drawn on, by reference.
    """

    def __init__(
        self,
        links: Links,
        record: Mapping[str, Any],
        sizes: Mapping[str, tuple[int, int]],
    ) -> None:
        kinds = largest_kinds(shown_pictures(record, LEVEL))
        gone = set(boxed_sources(record)) - set(sizes)
        self._pictures = {}
        for ref, kind in kinds.items():
            if ref in gone:
                continue
            width, height = sizes.get(ref, (1, 1))
            href = links.image(
                record["job"], record["layer"], record["unit"], ref, LEVEL.sides[kind]
            )
            self._pictures[ref] = Picture("", width, height, b"", href)

    def get(self, ref: str) -> Picture | None:
        return self._pictures.get(ref)


def boxed_sources(record: Mapping[str, Any]) -> list[str]:
    """The images of a unit on which a crop is drawn."""
    parts = [record, *(record.get("facets") or [])]
    return list(
        dict.fromkeys(
            one["source"] for part in parts for one in part.get("exemplars") or [] if one.get("box")
        )
    )
