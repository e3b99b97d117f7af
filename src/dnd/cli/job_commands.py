"""dnd jobs, watch, labels, export, pause, resume, cancel, retry, delete, gc."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from dnd.cli.connect import Session, connected
from dnd.cli.console import can_ask, clean, format_bytes, format_duration, print_table, say, warn
from dnd.cli.options import job_argument, limit_options, server_option
from dnd.cli.progress import Check, follow, headline
from dnd.client import Client
from dnd.errors import DndError, FailedPrecondition, Unavailable, UnknownName, suggest
from dnd.explorer.folder import write_explorer
from dnd.jobs import Job, JobState, Limits, UnitState
from dnd.report import Written, write_results
from dnd.report.results import FORMATS, write_table
from dnd.report.tables import complete_record


@click.command()
@server_option
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="NUMBER",
    default=20,
    show_default=True,
    help="Jobs to list at most.",
)
def jobs(server: str, home: Path, limit: int) -> None:
    """List the jobs, newest first."""
    with connected(server, home) as session:
        rows: list[tuple[object, ...]] = []
        for job in session.client.list_jobs(page_size=min(limit, 1000)):
            if len(rows) == limit:
                break
            rows.append(
                (
                    job.id,
                    job.state.value,
                    job.spec.model,
                    ", ".join(one.layer for one in job.spec.layers),
                    f"{job.num_ended}/{job.num_units}",
                    job.num_failed or "",
                    datetime.fromtimestamp(job.created_at_s).strftime("%Y-%m-%d %H:%M"),
                    format_duration(job.ended_at_s - job.created_at_s) if job.ended_at_s else "",
                )
            )
    if not rows:
        say("There are no jobs yet.")
        return
    headers = ("Job", "State", "Model", "Layers", "Units", "Failed", "Created", "Took")
    print_table(headers, rows, right=("Units", "Failed"))


@click.command()
@job_argument
@server_option
def watch(job: str, server: str, home: Path) -> None:
    """Show how far a job is, until it has ended.

    Ctrl-C ends the watching; the job goes on.
    """
    with connected(server, home) as session:
        job_id = session.client.get_job(job).id
        try:
            ended = follow(session.client, job_id, warn_of_death(session))
        except KeyboardInterrupt:
            say(f"The job goes on. Come back with `dnd watch {job_id}`.")
            raise
    say(headline(ended))
    finish(ended)


@click.command()
@job_argument
@server_option
@click.option("--layer", metavar="PATH", default="", help="Only this layer.")
@click.option(
    "--state",
    type=click.Choice([state.value for state in UnitState]),
    default=None,
    help="Only units in this state.",
)
@click.option("--json", "as_json", is_flag=True, help="Full records, one JSON object a line.")
def labels(job: str, server: str, home: Path, layer: str, state: str | None, as_json: bool) -> None:
    """Print the labels of a job."""
    with connected(server, home) as session:
        found = session.client.get_job(job)
        asked = [one.layer for one in found.spec.layers]
        if layer and layer not in asked:
            raise UnknownName(suggest(layer, asked, what="layer of this job"))
        names = class_names(session, found)
        records = (
            complete_record(found, unit, names.get(unit.layer, ()))
            for unit in session.client.labels(
                found.id, layer=layer, state=UnitState(state) if state else None
            )
        )
        if as_json:
            for record in records:
                click.echo(json.dumps(record, ensure_ascii=False, sort_keys=True))
            return
        rows = [label_row(record, bool(names)) for record in records]
    if not rows:
        say("No unit fits.")
        return
    print_table(label_headers(bool(names)), rows, right=("Unit", "Percentile", "AUC"))


@click.command()
@job_argument
@server_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder for labels.jsonl, labels.csv and report.html.  [default: results/JOB]",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default=None,
    help="Only this file, labels.FORMAT.  [default: labels.jsonl, labels.csv and report.html]",
)
@click.option("--explorer", is_flag=True, help="Write the explorer's pages too, into explorer/.")
def export(
    job: str, server: str, home: Path, out: Path | None, kind: str | None, explorer: bool
) -> None:
    """Write the results of a job into a folder, as they are at one moment; also while it runs."""
    if kind and explorer:
        raise click.UsageError("--format writes one file alone: leave it or --explorer out.")
    with connected(server, home) as session:
        found = session.client.get_job(job)
        folder = out or Path("results") / found.id
        if kind:
            say(f"{write_table(session.client, found, folder, kind)}")
            return
        written = write_results(session.client, found, folder)
        pages = _write_explorer(session.client, written) if explorer else None
    say(f"{written.report}")
    if pages:
        say(f"{pages}")


def _write_explorer(client: Client, written: Written) -> Path:
    """The page to open of the explorer's folder, which lies beside the other results."""
    job = written.job
    folder = written.report.parent / "explorer"
    return write_explorer(job, written.labels, lambda refs: client.images(job.id, refs), folder)


@click.command()
@job_argument
@server_option
def pause(job: str, server: str, home: Path) -> None:
    """Hold a job back; what runs finishes and is kept."""
    with connected(server, home) as session:
        found = session.client.pause_job(session.client.get_job(job).id)
    say(f"Job {found.id} is {found.state.value}. Go on with `dnd resume {found.id}`.")


@click.command()
@job_argument
@server_option
@limit_options
def resume(job: str, server: str, home: Path, limits: Limits) -> None:
    """Go on with a paused job, with higher limits if given."""
    with connected(server, home) as session:
        found = session.client.resume_job(session.client.get_job(job).id, limits)
    say(f"Job {found.id} is {found.state.value}. Watch it with `dnd watch {found.id}`.")


@click.command()
@job_argument
@server_option
def cancel(job: str, server: str, home: Path) -> None:
    """End a job for good; labels that are done stay."""
    with connected(server, home) as session:
        found = session.client.cancel_job(session.client.get_job(job).id)
    say(
        f"Job {found.id} is {found.state.value}. Labels that are done stay: "
        f"`dnd labels {found.id}`."
    )


@click.command()
@job_argument
@server_option
def retry(job: str, server: str, home: Path) -> None:
    """Run the failed units of an ended job again."""
    with connected(server, home) as session:
        found = session.client.retry_job(session.client.get_job(job).id)
    say(f"Job {found.id} is {found.state.value}. Watch it with `dnd watch {found.id}`.")


@click.command()
@click.argument("job")
@server_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def delete(job: str, server: str, home: Path, yes: bool) -> None:
    """Delete an ended JOB with its results.

    Its artifacts go with `dnd gc`, unless other jobs need them.
    """
    with connected(server, home) as session:
        found = session.client.get_job(job)
        if not yes:
            if not can_ask():
                raise FailedPrecondition("Nobody can be asked: add --yes to delete it.")
            click.confirm(f"Delete job {found.id} and its {found.num_units} units?", abort=True)
        session.client.delete_job(found.id)
    say(f"Job {found.id} is deleted. `dnd gc --remove` frees the space that only it needed.")


@click.command()
@server_option
@click.option(
    "--grace",
    "grace_h",
    type=click.FloatRange(0, 8760),
    metavar="HOURS",
    default=24.0,
    show_default=True,
    help="Spare what was stored or used within this time; below 1 only while no job goes on.",
)
@click.option("--remove", is_flag=True, help="Remove what is found; else it is only counted.")
def gc(server: str, home: Path, grace_h: float, remove: bool) -> None:
    """Find artifacts that no job refers to, and remove them.

    Jobs may go on meanwhile.
    """
    with connected(server, home) as session:
        found = session.client.collect_garbage(grace_h * 3600, remove=remove)
    size = format_bytes(found.num_bytes)
    vectors = f" and {found.num_vectors:,} embeddings of labels" if found.num_vectors else ""
    if found.removed:
        say(
            f"{found.num_artifacts:,} artifacts{vectors} removed ({size}); {found.num_kept:,} are "
            "left."
        )
        return
    say(
        f"{found.num_artifacts:,} artifacts ({size}){vectors} are needed by no job; "
        f"{found.num_kept:,} would be left. `dnd gc --remove` removes them."
    )


def warn_of_death(session: Session) -> Check:
    """A check that says once what has died on a shared stack: the job waits for it."""
    said: list[str] = []

    def check() -> None:
        try:
            session.check()
            said.clear()
        except Unavailable as error:
            if session.private:
                raise
            if error.message not in said:
                said.append(error.message)
                warn(error.message)

    return check


def finish(job: Job) -> None:
    """Says how a job ended where that is no success.

    Raises:
        DndError: Nothing, or not all of it, will come.
    """
    if job.state is JobState.FAILED:
        raise DndError(f"Job {job.id} failed: {clean(job.error) or 'no unit could be labelled'}.")
    if job.state is JobState.CANCELLED:
        raise DndError(f"Job {job.id} was cancelled; `dnd labels {job.id}` has what was done.")
    if job.num_failed:
        warn(
            f"{job.num_failed} of {job.num_units} units failed: `dnd labels --state failed` says "
            f"why, `dnd retry {job.id}` runs them again."
        )


def class_names(session: Session, job: Job) -> dict[str, Sequence[str]]:
    """Names of the classes by layer, of the job's layers that have them; for display only."""
    try:
        layers = session.client.layers(job.spec.model)
    except DndError:
        return {}
    asked = {one.layer for one in job.spec.layers}
    return {one.path: one.unit_names for one in layers if one.unit_names and one.path in asked}


def label_headers(with_classes: bool) -> tuple[str, ...]:
    base = ("Layer", "Unit", "Label", "Runner-up", "Percentile", "AUC")
    return (*base, "True class", "") if with_classes else base


def label_row(record: Mapping[str, Any], with_classes: bool) -> tuple[object, ...]:
    """One unit as a row of a table of labels."""
    found = record.get("labels") or []
    label = found[0]["text"] if found else f"({record['state']})"
    if found and record["state"] == "uncertain":
        label += " (uncertain)"
    row = (
        record["layer"],
        record["unit"],
        label,
        found[1]["text"] if len(found) > 1 else "",
        record.get("percentile"),
        record.get("auc"),
    )
    if not with_classes:
        return row
    truth = record.get("true_class") or {}
    hit = "" if truth.get("hit") is None else "hit" if truth["hit"] else "miss"
    return (*row, truth.get("name", ""), hit)
