"""Labels of units whose concept is known, by every method, beside the nulls.

    python -m benchmarks.quality [--folder FOLDER] [--units N] [--only KIND] [--variants]

Plants units, trains a small network, starts a stack of its own, labels the units by each method,
evaluates them as `dnd evaluate` does, and prints one table for each set of units. With --variants
it labels some of the units again with single settings changed. Everything stays in FOLDER if one
is given, the numbers in its quality.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.quality import facets, reports, variants
from benchmarks.quality.labelling import label_units
from benchmarks.quality.scoring import KnownUnit, compare_methods
from benchmarks.quality.sets import KINDS, UnitSet, make_set
from dnd.client import Client, EvaluationSettings, ImportedLabel
from dnd.jobs import Job, Method, UnitResult
from dnd.stack import Home, load_config, running_server, start, stop
from dnd_packs.starter.emoji_data import load_concepts

CONSOLE = Console(width=110)
DND = Method.DND.value
CLASSES = "classes"
"""Chosen by what excites them on the stack's own probe set, and so once that is drawn."""


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A set of units with its labels by every method."""

    units: UnitSet
    jobs: Mapping[str, Job]
    results: Mapping[str, Mapping[int, UnitResult]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality")
    parser.add_argument("--folder", type=Path, help="where everything stays")
    parser.add_argument("--units", type=int, default=64, help="units of a table at most")
    parser.add_argument("--variants", action="store_true", help="single settings changed, too")
    parser.add_argument("--only", choices=KINDS, help="units of this kind only")
    given = parser.parse_args()
    kinds = (given.only,) if given.only else KINDS
    if given.variants and kinds != KINDS:
        parser.error("--variants changes settings on units of all kinds: leave --only out.")
    if given.folder:
        run(given.folder, given.units, kinds, given.variants)
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder), given.units, kinds, given.variants)


def run(folder: Path, max_units: int, kinds: Sequence[str], with_variants: bool) -> None:
    """The benchmark of some kinds of units, in `folder`."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    sets = [make_set(kind, folder, max_units) for kind in kinds if kind != CLASSES]
    CONSOLE.print(f"prepared in {time.monotonic() - began:.0f} s")
    results: dict[str, Any] = {}
    home = Home(folder / "home")
    start(home, dataclasses.replace(load_config(), allow_specs=True))
    try:
        target = running_server(home)
        assert target
        with Client(target) as client:
            names = "\n".join(concept.name for concept in load_concepts())
            concept_set = client.create_concept_set("emoji names", names).concept_set
            if CLASSES in kinds:
                sets.append(make_set(CLASSES, folder, max_units))
            for one in sets:
                labelled = label_by_all(client, one, concept_set)
                results |= report(labelled, folder)
                results[f"{one.model} evaluated"] = evaluate(client, labelled)
                keep(folder, results)
            if with_variants:
                results["variants"] = []
                for row in variants.run(client, sets, CONSOLE):
                    results["variants"].append(row)
                    keep(folder, results)
                results["facets"] = facets.run(client, sets[0], CONSOLE)
                keep(folder, results)
    finally:
        stop(home)
    CONSOLE.print(f"in all {time.monotonic() - began:.0f} s")


def keep(folder: Path, results: Mapping[str, Any]) -> None:
    """Writes what is known so far."""
    (folder / "quality.json").write_text(json.dumps(results, indent=1))


def label_by_all(client: Client, one: UnitSet, concept_set: str) -> Labelled:
    """Labels the units by each method; CLIP-Dissect from the names of all emoji."""
    jobs, results = {}, {}
    for method in Method:
        concepts = "" if method is Method.DND else concept_set
        job, found = label_units(client, one, list(one.truths), method=method, concept_set=concepts)
        jobs[method.value], results[method.value] = job, found
        CONSOLE.print(
            f"{one.model} {method.value}: {len(one.truths)} units in "
            f"{job.ended_at_s - job.created_at_s:.0f} s, {job.num_failed} failed"
        )
    return Labelled(one, jobs, results)


def report(labelled: Labelled, folder: Path) -> dict[str, Any]:
    """Prints the tables of a set; their rows by name."""
    one, found = labelled.units, labelled.results
    tables: dict[str, Any] = {}
    for name, units in one.parts.items():
        rows = compare_methods(list(known_units(one, units, found)), DND)
        tables[name] = [dataclasses.asdict(row) for row in rows]
        reports.print_methods(CONSOLE, name, rows)
    if one.note:
        tables[f"{one.model} note"] = one.note
        CONSOLE.print(f"\n{one.note}")
    reports.write_labels(folder / "labels.csv", one, found)
    if bins := reports.reliability(one, found[DND]):
        tables[f"{one.model} by percentile"] = [dataclasses.asdict(row) for row in bins]
        reports.print_reliability(CONSOLE, f"{one.model}: DnD labels by percentile", bins)
    if one.stands_for:
        states: dict[str, list[str]] = {kind: [] for kind in one.stands_for.values()}
        for unit, kind in one.stands_for.items():
            states[kind].append(found[DND][unit].state.value)
        tables["units without a concept"] = states
        CONSOLE.print(f"\nunits without a concept, planted as: {states}")
    return tables


def known_units(
    one: UnitSet, units: Sequence[int], records: Mapping[str, Mapping[int, UnitResult]]
) -> Iterator[KnownUnit]:
    """Units with their labels by every method, a random candidate of DnD's among them."""
    rng = random.Random(0)
    for unit in units:
        labels = {
            method: found[unit].labels[0] for method, found in records.items() if found[unit].labels
        }
        pool = tuple(c["text"] for c in (records[DND][unit].record or {}).get("candidates", ()))
        if pool:
            labels["one random candidate"] = rng.choice(pool)
        yield KnownUnit(one.layer, unit, one.truths[unit], labels, pool)


def evaluate(client: Client, labelled: Labelled) -> dict[str, Any]:
    """The labels of all methods, and the true concepts, on images of an unseen style."""
    one, found = labelled.units, labelled.results
    told = {unit: truths[0] for unit, truths in one.truths.items() if truths}
    label_sets = {
        **{
            method: [
                ImportedLabel(one.layer, unit, result.labels[0])
                for unit, result in results.items()
                if result.labels
            ]
            for method, results in found.items()
            if method != DND
        },
        "the truth": [ImportedLabel(one.layer, unit, name) for unit, name in told.items()],
    }
    settings = EvaluationSettings(probe="emoji-judge", num_drawings=0)
    evaluation = client.evaluate(labelled.jobs[DND].id, settings, label_sets)
    reports.print_evaluation(CONSOLE, f"{one.model}: as `dnd evaluate` judges", evaluation)
    return {label_set["name"]: label_set["overall"] for label_set in evaluation["label_sets"]}


if __name__ == "__main__":
    main()
