"""Planted units of two concepts: are both found, and are units of one concept left whole?"""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.quality.labelling import label_units
from benchmarks.quality.scoring import nearest_cosines
from benchmarks.quality.sets import KNOWN, TWO, UnitSet
from dnd.client import Client
from dnd.jobs import UnitResult

MAX_ONE = 16
"""Units of one concept that are labelled too; the first of those that the benchmark labels."""


def run(client: Client, planted: UnitSet, console: Console) -> list[dict[str, Any]]:
    """Labels the units without and with facets and prints the table; its rows."""
    units = {"two concepts": planted.parts[TWO], "one concept": planted.parts[KNOWN][:MAX_ONE]}
    table = Table(
        "units of", "facets", "units", "split", "cosine of a concept to the nearest label"
    )
    rows = []
    for enabled in (False, True):
        _, found = label_units(
            client,
            planted,
            [unit for own in units.values() for unit in own],
            {"facets.enabled": enabled},
        )
        for name, own in units.items():
            labels = [_labels(found[unit]) for unit in own]
            row = {
                "units": name,
                "facets": enabled,
                "num_units": len(own),
                "num_split": sum(len(one) > 1 for one in labels),
                "cosine": float(
                    np.mean(
                        [
                            _coverage(one, planted.truths[unit])
                            for unit, one in zip(own, labels, strict=True)
                        ]
                    )
                ),
            }
            rows.append(row)
            table.add_row(
                name,
                "on" if enabled else "off",
                str(row["num_units"]),
                str(row["num_split"]),
                f"{row['cosine']:.3f}",
            )
    console.print("\n[bold]facets of planted units[/bold]")
    console.print(table)
    return rows


def _labels(unit: UnitResult) -> list[str]:
    """The best label of each kind of images; of a unit of one kind its label."""
    facets = (unit.record or {}).get("facets") or ()
    found = [facet["labels"][0]["text"] for facet in facets if facet["labels"]]
    return found or list(unit.labels[:1])


def _coverage(labels: list[str], truths: tuple[str, ...]) -> float:
    """Mean over the concepts of the cosine to the nearest label; 0 without a label."""
    if not labels:
        return 0.0
    return float(nearest_cosines(truths, [labels] * len(truths)).mean())
