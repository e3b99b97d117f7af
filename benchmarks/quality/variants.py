"""Single settings of the starter profile changed, one by one, on units whose concept is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.quality.labelling import label_units
from benchmarks.quality.scoring import nearest_cosines
from benchmarks.quality.sets import GROUPS, KNOWN, PREFERRED, UnitSet
from dnd.client import Client
from dnd.evaluation.compare import bootstrap_interval

MAX_UNITS = 12
"""Of each part; which ones are the first of those that the benchmark labels."""

BASE = "five summaries, no captions, pool of 6"
_BASE: Mapping[str, Any] = {
    "propose.num_summaries": 5,
    "propose.num_captions": 0,
    "propose.max_candidates": 6,
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    BASE: _BASE,
    "three summaries, two captions, pool of 7 (the profile)": {},
    "the profile, without the probe correlation": {"score.probe_correlation": False},
    "the profile, probe correlation alone": {"score.function": "probe_correlation"},
    "the profile, the paper's TopK comparison": {
        "score.function": "topk_compare",
        "score.probe_correlation": False,
    },
    "base, two captions, pool of 8": {
        **_BASE,
        "propose.num_captions": 2,
        "propose.max_candidates": 8,
    },
    "base, five contrast captions": {**_BASE, "propose.contrast": 5},
    "base, without the probe correlation": {**_BASE, "score.probe_correlation": False},
    "base, one call for all labels": {**_BASE, "propose.one_call": True},
    "base, captions simplified": {**_BASE, "propose.simplify": True},
    "base, without common phrases": {**_BASE, "propose.num_phrases": 0},
    "base, probe correlation alone": {**_BASE, "score.function": "probe_correlation"},
    "base, the paper's TopK comparison": {
        **_BASE,
        "score.function": "topk_compare",
        "score.probe_correlation": False,
    },
}


def run(client: Client, sets: Sequence[UnitSet], console: Console) -> Iterator[dict[str, Any]]:
    """Labels the units once for each variant; yields a row as soon as it is known, prints them."""
    table = Table("variant", "units", "MiniLM cosine", "best candidate", "minus the base", "95 %")
    base = np.zeros(0)
    for name, changes in VARIANTS.items():
        labels, best = _cosines(client, sets, changes)
        base = labels if name == BASE else base
        shared = np.isfinite(labels) & np.isfinite(base)
        difference = (labels - base)[shared]
        low, high = bootstrap_interval(difference, seed=0)
        yield {
            "variant": name,
            "settings": dict(changes),
            "num_units": int(shared.sum()),
            "cosine": float(np.nanmean(labels)),
            "best_candidate": float(np.nanmean(best)),
            "difference": float(difference.mean()),
            "interval": (low, high),
        }
        table.add_row(
            name,
            str(int(shared.sum())),
            f"{np.nanmean(labels):.3f}",
            f"{np.nanmean(best):.3f}",
            "" if name == BASE else f"{difference.mean():+.3f}",
            "" if name == BASE else f"{low:+.3f} to {high:+.3f}",
        )
    console.print("\n[bold]single settings changed[/bold]")
    console.print(table)


def _cosines(
    client: Client, sets: Sequence[UnitSet], changes: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Of each unit's label, and of its best candidate, to the truth; NaN for a unit without."""
    pools: list[tuple[list[str], tuple[str, ...]]] = []
    labels: list[str] = []
    for one in sets:
        units = [
            unit
            for part in (KNOWN, PREFERRED, GROUPS)
            for unit in one.parts.get(part, ())[:MAX_UNITS]
        ]
        _, found = label_units(client, one, units, changes)
        for unit in found.values():
            pool = [c["text"] for c in (unit.record or {}).get("candidates", ())]
            pools.append((pool, one.truths[unit.unit]))
            labels.append((unit.labels or ("",))[0])
    cosines = nearest_cosines(labels, [truths for _, truths in pools])
    best = [nearest_cosines(pool, [truths] * len(pool)).max() for pool, truths in pools if pool]
    return np.where(np.array(labels) == "", np.nan, cosines), np.array(best)
