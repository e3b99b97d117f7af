"""Garbage: artifacts that no job's rows refer to, and that have not been used for a while.

Where the operator keeps drawings of labels only, a set of drawings that is no label's of any unit
is garbage too, once the jobs that asked for it have ended and nothing of them can be retried:
records still list it, and a job that asks for its prompt draws it again.

It marks, then sweeps, while jobs run. Marked is what the record refers to, directly or through
other artifacts, and what names in the store that are in use point to. Whatever was stored or
recalled within the grace time is spared with all that it refers to: a worker may hold its reference
and not have written it yet.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dnd.artifacts import ArtifactStore
from dnd.errors import FailedPrecondition, InvalidInput, NotFound
from dnd.jobs import Garbage, JobState
from dnd.manifest import Manifest
from dnd.stages import Description
from dnd_services.coordinator import outputs, states
from dnd_services.coordinator.judging import Watcher
from dnd_services.coordinator.models import (
    ImageSetRow,
    JobLayerRow,
    JobRow,
    JobSetRow,
    ResultRow,
    UnitRow,
    WorkRow,
)
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.store.results import forget_results
from dnd_services.coordinator.store.search import forget_vectors, hash_label, list_vectors

SAFE_GRACE_S = 3600.0
"""A task ends well within this time: with a shorter grace, nothing may run."""

_REF = re.compile(rb"sha256:([0-9a-f]{64})")
_ARRAY_MAGIC = b"\x93NUMPY"
_JSON_STARTS = (b"{", b"[")
_ROWS_AT_ONCE = 5000
_MARKS_AT_ONCE = 1 << 20
_TELL_EVERY = 5000
_SETS_AT_ONCE = 5000

_GOES_ON = JobRow.state.in_((JobState.RUNNING.value, JobState.PAUSED.value))


class Marks:
    """References, by the first 64 bits of their digests: 8 bytes each.

    Two that share these bits spare each other, which costs some bytes and loses nothing.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._recent: set[int] = set()

    def add(self, digest: str) -> bool:
        """Marks a digest, 64 hexadecimal digits; whether that is news."""
        if self.has(digest):
            return False
        self._recent.add(int(digest[:16], 16))
        if len(self._recent) >= _MARKS_AT_ONCE:
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.union1d(self._sorted, recent)
            self._recent.clear()
        return True

    def has(self, digest: str) -> bool:
        head = int(digest[:16], 16)
        if head in self._recent:
            return True
        place = int(np.searchsorted(self._sorted, np.uint64(head)))
        return place < len(self._sorted) and int(self._sorted[place]) == head

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)


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
        job_id = session.scalar(select(JobRow.id).where(_GOES_ON).limit(1))
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
        self._unneeded: set[int] = set()
        self._unneeded_drawings = Marks()
        self._started_at = 0.0
        self._num_seen = 0

    def run(self) -> Garbage:
        # The order matters: a name that is gone can no longer be recalled, and what was recalled
        # before is young when the young are marked.
        if self._labels_only:
            self._find_unneeded()
        for text in self._record():
            self._mark_in(text.encode())
        for ref in self._names_in_use():
            self._mark(ref)
        for stored in self._artifacts.list_contents():
            if stored.renewed_at >= self._before:
                self._mark(stored.name)
        self._let_go(sorted(self._unneeded))
        if self._remove:
            self._forget_results()
        num_vectors = self._sweep_vectors()
        return replace(self._sweep(), num_vectors=num_vectors)

    def _record(self) -> Iterator[str]:
        """Everything in the record that may have references in it, jobs being deleted excepted."""
        with self._store.reading() as session:
            ids = list(session.scalars(select(JobRow.id).where(JobRow.deleted_at == 0)))
        for job_id in ids:
            with self._store.reading() as session:
                job = session.get(JobRow, job_id)
                yield json.dumps(job.frozen) if job else ""
                layers = select(JobLayerRow).where(JobLayerRow.job_id == job_id)
                for layer in session.scalars(layers):
                    yield f"{layer.index_ref} {layer.activities_ref}"
            yield from self._column(UnitRow.outputs, UnitRow.ordinal, UnitRow.job_id == job_id)
            yield from self._column(
                WorkRow.output, WorkRow.id, WorkRow.job_id == job_id, WorkRow.output != ""
            )
        for set_id, _, images in self._image_sets():
            if set_id not in self._unneeded:
                yield " ".join(images)

    def _image_sets(self) -> Iterator[tuple[int, str, list[str]]]:
        """(id, state, images) of all image sets, some rows at a time."""
        last = -1
        while True:
            with self._store.reading() as session:
                statement = (
                    select(ImageSetRow.id, ImageSetRow.state, ImageSetRow.images)
                    .where(ImageSetRow.id > last)
                    .order_by(ImageSetRow.id)
                    .limit(_ROWS_AT_ONCE)
                )
                rows = session.execute(statement).all()
            yield from ((row.id, row.state, row.images) for row in rows)
            if len(rows) < _ROWS_AT_ONCE:
                return
            last = rows[-1].id

    def _find_unneeded(self) -> None:
        """Finds the image sets that are no label's, and what they have drawn."""
        with self._store.reading() as session:
            self._started_at = self._store.now(session)
            needed = self._needed_sets(session)
        kept = Marks()
        for job_id in self._ended_jobs():
            for text in self._column(UnitRow.outputs, UnitRow.ordinal, UnitRow.job_id == job_id):
                for ref in _label_drawings(self._artifacts, json.loads(text).get("score", "")):
                    kept.add(_digest(ref))
        for set_id, state, images in self._image_sets():
            is_free = state == states.DONE and set_id not in needed
            if is_free and not any(kept.has(_digest(ref)) for ref in images):
                self._unneeded.add(set_id)
                for ref in images:
                    self._unneeded_drawings.add(_digest(ref))

    def _ended_jobs(self) -> list[str]:
        with self._store.reading() as session:
            statement = select(JobRow.id).where(JobRow.deleted_at == 0, ~_GOES_ON)
            return list(session.scalars(statement))

    def _needed_sets(self, session: Session, set_ids: Sequence[int] | None = None) -> set[int]:
        """Sets of jobs that go on, can be retried or have ended just now, and of no candidate.

        Args:
            set_ids: Those that are asked about; None for all.
        """
        failed = select(WorkRow.job_id).where(WorkRow.state == states.FAILED).distinct()
        statement = (
            select(JobSetRow.set_id)
            .join(JobRow, JobRow.id == JobSetRow.job_id)
            .where(
                _GOES_ON
                | (JobRow.ended_at > self._started_at)
                | (JobSetRow.scope != states.PROMPTS)
                | JobRow.id.in_(session.scalars(failed).all())
            )
        )
        if set_ids is not None:
            statement = statement.where(JobSetRow.set_id.in_(set_ids))
        return set(session.scalars(statement))

    def _let_go(self, set_ids: Sequence[int]) -> None:
        """Sets whose drawings go are as if they had never been drawn.

        Those keep all they have of which a drawing is young or has another use, or that a job has
        asked for since they were found.
        """
        for start in range(0, len(set_ids), _SETS_AT_ONCE):
            some = set_ids[start : start + _SETS_AT_ONCE]
            how = self._store.writing if self._remove else self._store.reading
            with how() as session:
                drawn = select(ImageSetRow.id, ImageSetRow.images, ImageSetRow.state)
                rows = session.execute(
                    drawn.where(ImageSetRow.id.in_(some)).order_by(ImageSetRow.id).with_for_update()
                ).all()
                # Looked up only now: others may have committed while the sets were being locked.
                needed = self._needed_sets(session, some)
                going = []
                for set_id, images, state in rows:
                    digests = [_digest(ref) for ref in images]
                    is_free = state == states.DONE and set_id not in needed
                    if is_free and not any(map(self._marks.has, digests)):
                        going.append(set_id)
                        continue
                    for digest in digests:
                        self._marks.add(digest)
                if self._remove:
                    session.execute(
                        update(ImageSetRow)
                        .where(ImageSetRow.id.in_(going))
                        .values(state=states.READY, images=[], attempts=0, losses=0, not_before=0.0)
                    )

    def _column(self, column: object, order: object, *where: object) -> Iterator[str]:
        """A column of a table, some rows at a time, so that no read of the record is long."""
        last = -1
        while True:
            with self._store.reading() as session:
                statement = (
                    select(order, column)  # type: ignore[call-overload]
                    .where(order > last, *where)  # type: ignore[operator]
                    .order_by(order)
                    .limit(_ROWS_AT_ONCE)
                )
                rows = session.execute(statement).all()
            for _, value in rows:
                yield value if isinstance(value, str) else json.dumps(value)
            if len(rows) < _ROWS_AT_ONCE:
                return
            last = rows[-1][0]

    def _names_in_use(self) -> Iterator[str]:
        """References behind names; those that have long pointed to what nobody needs go."""
        for name in self._artifacts.list_names():
            ref = self._artifacts.read_name(name.name)
            wanted = ref is not None and self._marks.has(_digest(ref))
            if wanted or name.renewed_at >= self._before:
                if ref:
                    yield ref
            elif self._remove and not self._artifacts.remove(name, self._before) and ref:
                yield ref  # it was recalled just now

    def _forget_results(self) -> None:
        """Results of stages keep nothing alive: those go whose artifacts nobody needs."""
        last = ""
        while True:
            with self._store.reading() as session:
                statement = select(ResultRow.key, ResultRow.ref).where(ResultRow.key > last)
                rows = session.execute(statement.order_by(ResultRow.key).limit(_ROWS_AT_ONCE)).all()
            gone = [
                key for key, ref in rows if not self._marks.has(_digest(outputs.artifact_of(ref)))
            ]
            if gone:
                with self._store.writing() as session:
                    forget_results(session, gone)
            if len(rows) < _ROWS_AT_ONCE:
                return
            last = rows[-1][0]

    def _sweep_vectors(self) -> int:
        """Embeddings of labels that no unit has any more, which are removed if told to.

        One that a search makes meanwhile may go too: the next search makes it again.
        """
        used = Marks()
        with self._store.reading() as session:
            ids = list(session.scalars(select(JobRow.id).where(JobRow.deleted_at == 0)))
        for job_id in ids:
            for labels in self._column(UnitRow.labels, UnitRow.ordinal, UnitRow.job_id == job_id):
                for label in json.loads(labels):
                    used.add(hash_label(label))
        num, last = 0, ("", "")
        while rows := self._read_vectors(last):
            gone = [(model, label) for model, label in rows if not used.has(label)]
            num += len(gone)
            if gone and self._remove:
                with self._store.writing() as session:
                    forget_vectors(session, gone)
            last = rows[-1]
        return num

    def _read_vectors(self, after: tuple[str, str]) -> list[tuple[str, str]]:
        with self._store.reading() as session:
            return list_vectors(session, after, _ROWS_AT_ONCE)

    def _mark(self, ref: str) -> None:
        """Marks an artifact and all that it refers to."""
        waiting = [ref]
        while waiting:
            one = waiting.pop()
            if not self._marks.add(_digest(one)):
                continue
            self._tell("mark")
            # A record of a unit lists all that was drawn for it; who needs more says so itself.
            waiting += [
                ref for ref in self._refs_in(one) if not self._unneeded_drawings.has(_digest(ref))
            ]

    def _mark_in(self, text: bytes) -> None:
        for found in _REF.finditer(text):
            self._mark(found.group().decode())

    def _refs_in(self, ref: str) -> list[str]:
        """References in an artifact: in JSON, and in the manifest of a probe set."""
        try:
            start = self._artifacts.read_start(ref, len(_ARRAY_MAGIC))
            if start == _ARRAY_MAGIC:
                return Manifest.load(self._artifacts, ref).refs()
            if start.startswith(_JSON_STARTS):
                data = self._artifacts.get_bytes(ref)
                return [found.group().decode() for found in _REF.finditer(data)]
        except (NotFound, InvalidInput):  # it is gone, or another kind of array
            pass
        return []

    def _sweep(self) -> Garbage:
        num_garbage = num_bytes = num_kept = 0
        self._num_seen = 0
        for stored in self._artifacts.list_contents():
            self._tell("sweep")
            is_garbage = stored.renewed_at < self._before and not self._marks.has(
                _digest(stored.name)
            )
            if is_garbage and self._remove:
                is_garbage = self._artifacts.remove(stored, self._before)
            if is_garbage:
                num_garbage += 1
                num_bytes += stored.num_bytes
            else:
                num_kept += 1
        return Garbage(num_garbage, num_bytes, num_kept, self._remove)

    def _tell(self, step: str) -> None:
        self._num_seen += 1
        if self._num_seen % _TELL_EVERY == 0:
            self._watch(step, self._num_seen, 0)


def _label_drawings(artifacts: ArtifactStore, ref: str) -> Iterator[str]:
    """Drawings of a unit's labels, of each kind of its images, by the output of stage score."""
    if not ref:
        return
    try:
        description = outputs.load(artifacts, ref, Description)
    except NotFound:  # it was removed by hand
        return
    for part in description.parts:
        for one in part.scored:
            if one.candidate.text in part.labels:
                yield from one.images


def _digest(ref: str) -> str:
    return ref.removeprefix("sha256:")
