"""dnd search, diff."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import click

from dnd.cli.connect import connected
from dnd.cli.console import print_table, say
from dnd.cli.options import server_option
from dnd.diff import UnitDiff, diff_labels
from dnd.jobs import UnitResult


@click.command()
@click.argument("text")
@server_option
@click.option("--meaning", is_flag=True, help="Labels that mean much the same, nearest first.")
@click.option("--job", metavar="JOB", default="", help="Only this job.  [default: all jobs]")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    metavar="NUMBER",
    default=20,
    show_default=True,
    help="Units to list at most.",
)
def search(text: str, server: str, home: Path, meaning: bool, job: str, limit: int) -> None:
    """Find units by the words of their labels, or by what they mean."""
    with connected(server, home) as session:
        found = session.client.search(text, by_meaning=meaning, job_id=job, page_size=limit)
        hits = list(islice(found, limit))
    if not hits:
        say("No label fits.")
        return
    rows = [
        (hit.job_id, hit.unit.layer, hit.unit.unit, hit.label, hit.unit.percentile)
        + ((round(hit.score, 3),) if meaning else ())
        for hit in hits
    ]
    headers = ("Job", "Layer", "Unit", "Label", "Percentile") + (("Cosine",) if meaning else ())
    print_table(headers, rows, right=("Unit", "Percentile", "Cosine"))


@click.command()
@click.argument("before", metavar="JOB")
@click.argument("after", metavar="JOB")
@server_option
@click.option("--all", "with_same", is_flag=True, help="List units with equal labels too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def diff(before: str, after: str, server: str, home: Path, with_same: bool, as_json: bool) -> None:
    """Compare the labels of two jobs: two methods, or two checkpoints of a network.

    Units are paired by layer and number.
    """
    with connected(server, home) as session:
        first, second = (
            session.client.labels(job, with_records=False, page_size=1000)
            for job in (before, after)
        )
        found = diff_labels(first, second)
    shown = found.units if with_same else found.changed
    if as_json:
        for one in shown:
            click.echo(json.dumps(_plain(one), ensure_ascii=False, sort_keys=True))
        return
    if shown:
        rows = [
            (one.before.layer, one.before.unit, *_cells(one.before), *_cells(one.after))
            for one in shown
        ]
        headers = ("Layer", "Unit", f"Label in {before}", "%", f"Label in {after}", "% ")
        print_table(headers, rows, right=("Unit", "%", "% "))
    num = len(found.units)
    say(f"{len(found.changed)} of the {num} units of both jobs have other labels.")
    if found.num_only_before or found.num_only_after:
        say(
            f"{found.num_only_before} units are only in {before}, {found.num_only_after} only in "
            f"{after}."
        )


def _cells(unit: UnitResult) -> tuple[object, object]:
    return (unit.labels[0] if unit.labels else f"({unit.state.value})", unit.percentile)


def _plain(one: UnitDiff) -> dict[str, Any]:
    return {
        "layer": one.before.layer,
        "unit": one.before.unit,
        "same": one.is_same,
        **{
            name: {
                "state": unit.state.value,
                "labels": list(unit.labels),
                "percentile": unit.percentile,
            }
            for name, unit in (("before", one.before), ("after", one.after))
        },
    }
