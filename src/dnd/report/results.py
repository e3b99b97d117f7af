"""The results folder of a job: labels.jsonl, labels.csv, report.html."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dnd.client import Client
from dnd.errors import DndError, FailedPrecondition, StorageFull
from dnd.jobs import Job
from dnd.report.evaluation import load_evaluation
from dnd.report.frames import write_parquet
from dnd.report.page import write_report
from dnd.report.tables import LabelFile, write_tables
from dnd.types import LayerInfo

NEEDED_BYTES = 50 * 2**20
FORMATS = ("jsonl", "csv", "parquet")
"""The files of units without a report."""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        job: The job as it was then.
        labels: labels.jsonl and its lines.
        csv: labels.csv.
        report: report.html.
    """

    job: Job
    labels: LabelFile
    csv: Path
    report: Path


def write_results(client: Client, job: Job, out: Path) -> Written:
    """Fetches the units of `job` and writes its results into the folder `out`.

    The units are those of one moment, also while the job runs.

    An evaluation of this job that lies in the folder goes into the report.

    Raises:
        StorageFull: The disk is full.
        DndError: The server does not answer; what was written before stays as it was.
    """
    with writing_results(job, out):
        job, labels = write_labels(client, job, out)
        report = write_report(
            job,
            labels,
            lambda refs: client.images(job.id, refs),
            out / "report.html",
            load_evaluation(out, job.id),
        )
    return Written(job, labels, out / "labels.csv", report)


def write_table(client: Client, job: Job, out: Path, kind: str) -> Path:
    """Writes the units of `job`, as they are at one moment, into one file of the folder `out`.

    Args:
        kind: One of `FORMATS`.

    Raises:
        StorageFull: The disk is full.
        FailedPrecondition: Parquet, and pyarrow is not installed.
        DndError: The server does not answer; what was written before stays as it was.
    """
    target = out / f"labels.{kind}"
    with writing_results(job, out), tempfile.TemporaryDirectory(dir=out, prefix=".dnd-") as folder:
        draft = Path(folder)
        _, labels = write_labels(client, job, draft)
        if kind == "parquet":
            write_parquet(labels, draft / target.name)
        (draft / target.name).replace(target)
    return target


@contextmanager
def writing_results(job: Job, out: Path) -> Iterator[None]:
    """Makes the folder; what goes wrong with it becomes an error that says how to go on."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(out).free < NEEDED_BYTES:
            raise StorageFull(
                f"{out} has less than {NEEDED_BYTES >> 20} MB left: free some space, then run "
                f"`dnd export {job.id} --out {out}`."
            )
        yield
    except OSError as error:
        kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else FailedPrecondition
        raise kind(
            f"The results cannot be written to {out}: {error.strerror or error}. Nothing is lost: "
            f"run `dnd export {job.id} --out FOLDER` once there is a folder to write to."
        ) from error


def write_labels(client: Client, job: Job, out: Path) -> tuple[Job, LabelFile]:
    """Writes labels.jsonl and labels.csv of one moment into an existing folder; the job then."""
    layers = _layers(client, job)
    export = client.export(job.id)
    return export.job, write_tables(export.job, export.units, layers, out)


def _layers(client: Client, job: Job) -> Sequence[LayerInfo]:
    """The model's layers, for the names of its classes; a report can do without them."""
    try:
        return client.layers(job.spec.model)
    except DndError:
        return ()
