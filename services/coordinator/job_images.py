"""Which images the results of a job have: a reference is resolved for nobody else."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from dnd.artifacts import ArtifactStore
from dnd.errors import NotFound
from dnd_services.coordinator import outputs, views
from dnd_services.coordinator.models import ImageSetRow, JobRow, JobSetRow, UnitRow
from dnd_services.coordinator.store import Store, reading

MAX_JOBS = 16
"""Jobs whose images are remembered."""
_REF = re.compile(r"sha256:[0-9a-f]{64}")
_ROWS_AT_ONCE = 200


@dataclass
class _Known:
    """What is known of a job's images: their digests, and the outputs that were looked through."""

    digests: set[bytes] = field(default_factory=set)
    outputs: set[str] = field(default_factory=set)

    def add(self, text: str) -> None:
        """Adds all references in a text."""
        found = _REF.findall(text)
        self.digests.update(bytes.fromhex(ref.removeprefix("sha256:")) for ref in found)

    def lacks(self, ref: str) -> bool:
        return bytes.fromhex(ref.removeprefix("sha256:")) not in self.digests


class JobImages:
    """The images of jobs, as far as they have been asked for.

    Args:
        store: The record, through whose rows alone references are resolved.
        artifacts: Where the outputs of stages lie.
    """

    def __init__(self, store: Store, artifacts: ArtifactStore) -> None:
        self._store = store
        self._artifacts = artifacts
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, job_id: str, record_json: str) -> None:
        """Takes down the images in a record of a job, which its caller will ask for next."""
        self._of(job_id).add(record_json)

    def check(self, job: JobRow, refs: Sequence[str]) -> None:
        """Raises NotFound unless all references are of images in the job's results."""
        missing = [ref for ref in refs if not _REF.fullmatch(ref)]
        if not missing:
            missing = self._look_for(job, refs)
        if missing:
            raise NotFound(f"The results of job {job.id} have no image {missing[0][:80]!r}.")

    def _look_for(self, job: JobRow, refs: Sequence[str]) -> list[str]:
        """Those references that the job's results do not have."""
        known = self._of(job.id)
        missing = [ref for ref in refs if known.lacks(ref)]
        if missing:
            for text in self._texts(job, known):
                known.add(text)
                missing = [ref for ref in missing if known.lacks(ref)]
                if not missing:
                    break
        return missing

    def _of(self, job_id: str) -> _Known:
        with self._lock:
            known = self._known.setdefault(job_id, _Known())
            self._known.move_to_end(job_id)
            if len(self._known) > MAX_JOBS:
                self._known.popitem(last=False)
            return known

    def _texts(self, job: JobRow, known: _Known) -> Iterator[str]:
        """What the job's stages have left, as far as it has not been looked through."""
        yield from self._drawings(job)
        last = -1
        while True:
            with self._store.reading() as session:
                statement = (
                    select(UnitRow)
                    .where(UnitRow.job_id == job.id, UnitRow.ordinal > last)
                    .order_by(UnitRow.ordinal)
                    .limit(_ROWS_AT_ONCE)
                )
                rows = session.scalars(statement).all()
                layers = {layer.place: layer for layer in reading.read_layers(session, job.id)}
            for row in rows:
                yield from self._outputs(row, known)
                if "dissect" in row.outputs:  # its images lie in an array
                    layer = layers[row.place]
                    view = reading.view_unit(job, layer, row.unit, row.ordinal, row)
                    error = views.error_of(job, view)
                    yield views.record_json(job, view, self._artifacts, error)
            if len(rows) < _ROWS_AT_ONCE:
                return
            last = rows[-1].ordinal

    def _outputs(self, row: UnitRow, known: _Known) -> Iterator[str]:
        for stage, ref in row.outputs.items():
            artifact = outputs.artifact_of(ref)
            if stage == "dissect" or artifact in known.outputs:
                continue
            try:
                yield self._artifacts.get_bytes(artifact).decode()
            except NotFound:  # it was removed by hand
                continue
            known.outputs.add(artifact)

    def _drawings(self, job: JobRow) -> Iterator[str]:
        """References of the drawings that the job has asked for."""
        statement = (
            select(ImageSetRow.images)
            .join(JobSetRow, JobSetRow.set_id == ImageSetRow.id)
            .where(JobSetRow.job_id == job.id)
        )
        with self._store.reading() as session:
            for images in session.scalars(statement):
                yield " ".join(images)
