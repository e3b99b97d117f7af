"""Garbage: artifacts that no job's rows refer to, and that have not been used for a while.

It marks, then sweeps, while jobs run. Marked is what the record refers to, directly or through
other artifacts, and what names in the store that are in use point to. Whatever was stored or
recalled within the grace time is spared with all that it refers to: a worker may hold its reference
and not have written it yet. Where the operator keeps drawings of labels only, the others are not
marked (`spare_drawings.py`).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from sqlalchemy import select

from dnd.artifacts import ArtifactStore
from dnd.chunks import chunks
from dnd.errors import FailedPrecondition, InvalidInput, NotFound
from dnd.jobs import Garbage
from dnd.manifest import Manifest
from dnd_services.coordinator import outputs
from dnd_services.coordinator.judging import Watcher
from dnd_services.coordinator.marks import Marks
from dnd_services.coordinator.models import (
    ImageSetRow,
    JobLayerRow,
    JobRow,
    ResultRow,
    UnitRow,
    WorkRow,
)
from dnd_services.coordinator.spare_drawings import GOES_ON, SpareDrawings
from dnd_services.coordinator.store import Store, paging
from dnd_services.coordinator.store.results import forget_results
from dnd_services.coordinator.store.search import forget_vectors, hash_label, list_vectors

SAFE_GRACE_S = 3600.0
"""A task ends well within this time: with a shorter grace, nothing may run."""

_REF = re.compile(rb"sha256:[0-9a-f]{64}")
_ARRAY_MAGIC = b"\x93NUMPY"
_JSON_STARTS = (b"{", b"[")
_TELL_EVERY = 5000


def collect(
    store: Store,
    artifacts: ArtifactStore,
    grace_s: float,
    remove: bool,
    watch: Watcher,
    *,
    labels_only: bool = False,
) -> Garbage:
    """Finds the artifacts that nothing refers to, and removes them if told to.

    Args:
        grace_s: What was stored or recalled within this time is spared, seconds.
        watch: Told how far it is: the steps are "mark" and "sweep".
        labels_only: Whether drawings that are no label's are garbage once their jobs have ended.

    Raises:
        FailedPrecondition: The grace time is short, and a job runs.
    """
    check_grace(store, grace_s)
    before = time.time() - grace_s
    return _Collection(store, artifacts, before, remove, watch, labels_only).run()


def check_grace(store: Store, grace_s: float) -> None:
    """Raises FailedPrecondition for a grace that is too short while a job runs."""
    if grace_s >= SAFE_GRACE_S:
        return
    with store.reading() as session:
        job_id = session.scalar(select(JobRow.id).where(GOES_ON).limit(1))
    if job_id is not None:
        raise FailedPrecondition(
            f"Job {job_id} has not ended, and may need what is younger than {grace_s:.0f} s: "
            f"expected a grace time of at least {SAFE_GRACE_S:.0f} s while a job goes on."
        )


class _Collection:
    """One mark and sweep."""

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        before: float,
        remove: bool,
        watch: Watcher,
        labels_only: bool,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._before = before
        self._remove = remove
        self._watch = watch
        self._labels_only = labels_only
        self._marks = Marks()
        self._num_seen = 0
        self._read_rows = partial(paging.rows_in_pages, store, lambda: self._tell("mark"))
        self._spare = SpareDrawings(store, artifacts, self._read_rows)

    def run(self) -> Garbage:
        # The order matters: a name that is gone can no longer be recalled, and what was recalled
        # before is young when the young are marked.
        if self._labels_only:
            self._spare.find()
        for text in self._record():
            for ref in _refs(text.encode()):
                self._mark(ref)
        for ref in self._names_in_use():
            self._mark(ref)
        for stored in self._artifacts.list_contents():
            if stored.renewed_at >= self._before:
                self._mark(stored.name)
        self._spare.let_go(self._marks, remove=self._remove)
        if self._remove:
            self._forget_results()
        num_vectors = self._sweep_vectors()
        return replace(self._sweep(), num_vectors=num_vectors)

    def _record(self) -> Iterator[str]:
        """Everything in the record that may have references in it, jobs being deleted excepted."""
        for job_id in self._job_ids():
            with self._store.reading() as session:
                job = session.get(JobRow, job_id)
                yield json.dumps(job.frozen) if job else ""
                layers = select(JobLayerRow).where(JobLayerRow.job_id == job_id)
                for layer in session.scalars(layers):
                    yield f"{layer.index_ref} {layer.activities_ref}"
            of_job = [UnitRow.job_id == job_id]
            for _, stored in self._read_rows(UnitRow.ordinal, UnitRow.outputs, where=of_job):
                yield " ".join(stored.values())
            with_output = [WorkRow.job_id == job_id, WorkRow.output != ""]
            for _, output in self._read_rows(WorkRow.id, WorkRow.output, where=with_output):
                yield output
        for set_id, images in self._read_rows(ImageSetRow.id, ImageSetRow.images):
            if set_id not in self._spare:
                yield " ".join(images)

    def _job_ids(self) -> list[str]:
        with self._store.reading() as session:
            return list(session.scalars(select(JobRow.id).where(JobRow.deleted_at == 0)))

    def _names_in_use(self) -> Iterator[str]:
        """References behind names; those that have long pointed to what nobody needs go."""
        for name in self._artifacts.list_names():
            ref = self._artifacts.read_name(name.name)
            wanted = ref is not None and ref in self._marks
            if wanted or name.renewed_at >= self._before:
                if ref:
                    yield ref
            elif self._remove and not self._artifacts.remove(name, self._before) and ref:
                yield ref  # it was recalled just now

    def _forget_results(self) -> None:
        """Results of stages keep nothing alive: those go whose artifacts nobody needs."""
        gone = [
            key
            for key, ref in self._read_rows(ResultRow.key, ResultRow.ref)
            if outputs.artifact_of(ref) not in self._marks
        ]
        for some in chunks(gone, paging.ROWS_AT_ONCE):
            with self._store.writing() as session:
                forget_results(session, some)

    def _sweep_vectors(self) -> int:
        """Embeddings of labels that no unit has any more, which are removed if told to.

        One that a search makes meanwhile may go too: the next search makes it again.
        """
        used = Marks()
        for job_id in self._job_ids():
            of_job = [UnitRow.job_id == job_id]
            for _, labels in self._read_rows(UnitRow.ordinal, UnitRow.labels, where=of_job):
                for label in labels:
                    used.add(hash_label(label))
        num, last = 0, ("", "")
        while rows := self._read_vectors(last):
            gone = [(model, label) for model, label in rows if label not in used]
            num += len(gone)
            if gone and self._remove:
                with self._store.writing() as session:
                    forget_vectors(session, gone)
            last = rows[-1]
        return num

    def _read_vectors(self, after: tuple[str, str]) -> list[tuple[str, str]]:
        with self._store.reading() as session:
            return list_vectors(session, after, paging.ROWS_AT_ONCE)

    def _mark(self, ref: str) -> None:
        """Marks an artifact and all that it refers to."""
        waiting = [ref]
        while waiting:
            one = waiting.pop()
            if not self._marks.add(one):
                continue
            self._count("mark")
            # A record of a unit lists all that was drawn for it; who needs more says so itself.
            waiting += [ref for ref in self._refs_in(one) if ref not in self._spare.drawings]

    def _refs_in(self, ref: str) -> list[str]:
        """References in an artifact: in JSON, and in the manifest of a probe set."""
        try:
            start = self._artifacts.read_start(ref, len(_ARRAY_MAGIC))
            if start == _ARRAY_MAGIC:
                return Manifest.load(self._artifacts, ref).refs()
            if start.startswith(_JSON_STARTS):
                return _refs(self._artifacts.get_bytes(ref))
        except (NotFound, InvalidInput):  # it is gone, or another kind of array
            pass
        return []

    def _sweep(self) -> Garbage:
        num_garbage = num_bytes = num_kept = 0
        self._num_seen = 0
        for stored in self._artifacts.list_contents():
            self._count("sweep")
            is_garbage = stored.renewed_at < self._before and stored.name not in self._marks
            if is_garbage and self._remove:
                is_garbage = self._artifacts.remove(stored, self._before)
            if is_garbage:
                num_garbage += 1
                num_bytes += stored.num_bytes
            else:
                num_kept += 1
        return Garbage(num_garbage, num_bytes, num_kept, self._remove)

    def _count(self, step: str) -> None:
        self._num_seen += 1
        if self._num_seen % _TELL_EVERY == 0:
            self._tell(step)

    def _tell(self, step: str) -> None:
        self._watch(step, self._num_seen, 0)


def _refs(data: bytes) -> list[str]:
    """The references in a text."""
    return [found.decode() for found in _REF.findall(data)]
