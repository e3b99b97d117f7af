"""Single settings of the starter profile changed, one by one, on units whose concept is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.quality.scoring import nearest_cosines
from benchmarks.quality.sets import GROUPS, IMAGENET, KNOWN, UnitSet
from dnd.client import Client
from dnd.evaluation.compare import bootstrap_interval
from dnd.jobs import JobSpec, LayerUnits

MAX_UNITS = 16
"""Of each part; which ones are the first of those that the benchmark labels."""

BASE = "the profile as it is"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    BASE: {},
    "without caption phrases in the pool": {"propose.num_phrases": 0},
    "without any wider pool": {"propose.num_phrases": 0, "propose.add_background": False},
    "pool of 8": {"propose.max_candidates": 8},
    "pool of 8 with two captions": {"propose.max_candidates": 8, "propose.num_captions": 2},
    "pool of 7, three summaries, two captions": {
        "propose.max_candidates": 7,
        "propose.num_captions": 2,
        "propose.num_summaries": 3,
    },
    "without the probe correlation": {"score.probe_correlation": False},
    "probe correlation alone": {"score.function": "probe_correlation"},
    "the paper's TopK comparison": {
        "score.function": "topk_compare",
        "score.probe_correlation": False,
    },
    "captions simplified": {"propose.simplify": True},
    "one call for all labels": {"propose.one_call": True},
}


def run(client: Client, sets: Sequence[UnitSet], console: Console) -> list[dict[str, Any]]:
    """Labels the units once for each variant and prints the table; its rows."""
    values = {name: _cosines(client, sets, changes) for name, changes in VARIANTS.items()}
    table = Table("variant", "units", "MiniLM cosine", "best candidate", "minus the base", "95 %")
    rows = []
    base = values[BASE][0]
    for name, (labels, best) in values.items():
        shared = np.isfinite(labels) & np.isfinite(base)
        difference = (labels - base)[shared]
        low, high = bootstrap_interval(difference, seed=0)
        rows.append(
            {
                "variant": name,
                "settings": dict(VARIANTS[name]),
                "num_units": int(shared.sum()),
                "cosine": float(np.nanmean(labels)),
                "best_candidate": float(np.nanmean(best)),
                "difference": float(difference.mean()),
                "interval": (low, high),
            }
        )
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
    return rows


def _cosines(
    client: Client, sets: Sequence[UnitSet], changes: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Of each unit's label, and of its best candidate, to the truth; NaN for a unit without."""
    labels, best = [], []
    for one in sets:
        units = [
            unit
            for part in (KNOWN, IMAGENET, GROUPS)
            for unit in one.parts.get(part, ())[:MAX_UNITS]
        ]
        if not units:
            continue
        spec = JobSpec(
            one.model,
            (LayerUnits(one.layer, tuple(sorted(units))),),
            one.probe,
            "starter",
            overrides={path: json.dumps(value) for path, value in changes.items()},
        )
        job = client.create_job(spec)
        for _ in client.watch(job.id):
            pass
        found = {unit.unit: unit for unit in client.labels(job.id, with_records=True)}
        for unit in sorted(units):
            pool = [c["text"] for c in (found[unit].record or {}).get("candidates", ())]
            named = list(found[unit].labels[:1])
            truths = [one.truths[unit]]
            labels.append(float(nearest_cosines(named, truths)[0]) if named else np.nan)
            best.append(float(nearest_cosines(pool, truths * len(pool)).max()) if pool else np.nan)
    return np.array(labels), np.array(best)
