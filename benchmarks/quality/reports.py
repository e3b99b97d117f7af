"""The tables that the quality benchmark prints."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.quality.scoring import Row, nearest_cosines
from benchmarks.quality.sets import UnitSet
from dnd.jobs import UnitResult
from dnd.report.evaluation import null_rows
from dnd.report.judged import decimal

RIGHT = 0.6
"""A label with at least this cosine to the truth is counted as right."""
BOUNDS = (0.0, 0.5, 0.8, 0.9, 1.01)


@dataclass(frozen=True)
class Bin:
    """DnD's labels whose percentile lies in [low, high)."""

    low: float
    high: float
    num_units: int
    cosine: float
    right: float


def print_methods(console: Console, name: str, rows: Sequence[Row]) -> None:
    """One set of units: every method and null, and how far DnD is above it."""
    if not rows:
        console.print(f"\n{name}: no unit was labelled by all methods")
        return
    table = Table("labels", "units", "MiniLM cosine", "exact", "DnD minus it", "95 % interval")
    for row in rows:
        difference = rows[0].differences.get(row.method)
        table.add_row(
            row.method,
            str(row.num_units),
            f"{row.cosine:.3f}",
            "" if np.isnan(row.exact) else f"{row.exact:.0%}",
            f"{difference[0]:+.3f}" if difference else "",
            f"{difference[1]:+.3f} to {difference[2]:+.3f}" if difference else "",
        )
    console.print(f"\n[bold]{name}[/bold]")
    console.print(table)


def reliability(one: UnitSet, found: Mapping[int, UnitResult]) -> list[Bin]:
    """Whether labels with a high percentile are right more often."""
    told = [
        (unit, float(percentile))
        for unit, result in found.items()
        if one.truths[unit]
        and result.labels
        and (percentile := (result.record or {}).get("percentile")) is not None
    ]
    if not told:
        return []
    cosines = nearest_cosines(
        [found[unit].labels[0] for unit, _ in told], [one.truths[unit] for unit, _ in told]
    )
    percentiles = np.array([percentile for _, percentile in told])
    bins = []
    for low, high in itertools.pairwise(BOUNDS):
        chosen = cosines[(percentiles >= low) & (percentiles < high)]
        if len(chosen):
            share = float((chosen >= RIGHT).mean())
            bins.append(Bin(low, high, len(chosen), float(chosen.mean()), share))
    return bins


def print_reliability(console: Console, name: str, bins: Sequence[Bin]) -> None:
    """Percentile against the truth."""
    table = Table("percentile", "units", "MiniLM cosine", f"cosine ≥ {RIGHT}")
    for one in bins:
        table.add_row(
            f"{one.low:.1f} to {min(one.high, 1.0):.1f}",
            str(one.num_units),
            f"{one.cosine:.3f}",
            f"{one.right:.0%}",
        )
    console.print(f"\n[bold]{name}[/bold]")
    console.print(table)


def print_evaluation(console: Console, name: str, evaluation: Mapping[str, Any]) -> None:
    """What the judge says, every label set beside its nulls."""
    table = Table("labels", "metric", "units", "mean", "null", "its mean", "95 % of the gain")
    for row in null_rows(evaluation):
        table.add_row(
            row.labels,
            row.metric,
            str(row.num_units),
            decimal(row.mean),
            row.null,
            decimal(row.null_mean),
            f"{row.interval[0]:+.3f} to {row.interval[1]:+.3f}" if row.interval else "",
        )
    console.print(f"\n[bold]{name}[/bold]")
    console.print(table)


def write_labels(path: Path, one: UnitSet, found: Mapping[str, Mapping[int, UnitResult]]) -> None:
    """Adds the units of a set, their concepts and all labels to a CSV file."""
    is_new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(["part", "unit", "truth", *found])
        for part, units in one.parts.items():
            for unit in units:
                labels = [(found[m][unit].labels or ("",))[0] for m in found]
                writer.writerow([part, unit, " / ".join(one.truths[unit]), *labels])
