"""Drawings that an operator need not keep: those that are no label's of any unit.

They are garbage once the jobs that asked for them have ended and nothing of them can be retried:
records still list them, and a job that asks for their prompt draws it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Row, select, update

from dnd.artifacts import ArtifactStore
from dnd.chunks import chunks
from dnd.errors import NotFound
from dnd.jobs import JobState
from dnd.stages import Description
from dnd_services.coordinator import outputs, states
from dnd_services.coordinator.marks import Marks
from dnd_services.coordinator.models import CounterRow, ImageSetRow, JobRow, JobSetRow, UnitRow
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.store.bulk import among

GOES_ON = JobRow.state.in_((JobState.RUNNING.value, JobState.PAUSED.value))
_SETS_AT_ONCE = 1000

ReadRows: TypeAlias = Callable[..., Iterator[Row[*tuple[Any, ...]]]]
"""`rows_in_pages` of a store."""


class SpareDrawings:
    """The image sets whose drawings can go: found first, let go when all else is marked.

    Attributes:
        drawings: Marks on what they have drawn.
    """

    def __init__(self, store: Store, artifacts: ArtifactStore, read_rows: ReadRows) -> None:
        self._store = store
        self._artifacts = artifacts
        self._read_rows = read_rows
        self._set_ids: set[int] = set()
        self._found_at = 0.0
        self.drawings = Marks()

    def __contains__(self, set_id: int) -> bool:
        return set_id in self._set_ids

    def find(self) -> None:
        """Finds those sets: of candidates that are no labels, and that no job may need again."""
        # A job that can be retried has failed work; drawings that failed are counted there too.
        failed = select(CounterRow.job_id).where(
            CounterRow.state == states.FAILED,
            CounterRow.num > 0,
            ~CounterRow.name.startswith("synthesize"),
        )
        with self._store.reading() as session:
            self._found_at = self._store.now(session)
            jobs = select(JobRow.id).where(self._is_busy() | JobRow.id.in_(failed))
            needed = set(
                session.scalars(
                    select(JobSetRow.set_id).where(
                        JobSetRow.job_id.in_(jobs) | (JobSetRow.scope != states.PROMPTS)
                    )
                )
            )
        kept = self._label_drawings()
        columns = (ImageSetRow.id, ImageSetRow.state, ImageSetRow.images)
        for set_id, state, images in self._read_rows(*columns):
            is_free = state == states.DONE and set_id not in needed
            if is_free and not any(ref in kept for ref in images):
                self._set_ids.add(set_id)
                for ref in images:
                    self.drawings.add(ref)

    def let_go(self, marks: Marks, *, remove: bool) -> None:
        """Sets whose drawings go are as if they had never been drawn.

        Those keep all they have of which a drawing is marked, as it is young or has another use, or
        that a job has asked for since they were found: their drawings are marked.

        Args:
            remove: Whether they go; else it is only found which would.
        """
        open_session = self._store.writing if remove else self._store.reading
        for some in chunks(sorted(self._set_ids), _SETS_AT_ONCE):
            with open_session() as session:
                drawn = (
                    select(ImageSetRow.id, ImageSetRow.state, ImageSetRow.images)
                    .where(among(session, ImageSetRow.id, some))
                    .order_by(ImageSetRow.id)
                )
                rows = session.execute(drawn.with_for_update() if remove else drawn).all()
                # Looked up only now: others may have committed while the sets were being locked.
                asked = select(JobSetRow.set_id).where(
                    JobSetRow.job_id.in_(select(JobRow.id).where(self._is_busy())),
                    among(session, JobSetRow.set_id, some),
                )
                needed = set(session.scalars(asked))
                going = []
                for set_id, state, images in rows:
                    is_free = state == states.DONE and set_id not in needed
                    if is_free and not any(ref in marks for ref in images):
                        going.append(set_id)
                        continue
                    for ref in images:
                        marks.add(ref)
                if remove and going:
                    session.execute(
                        update(ImageSetRow)
                        .where(among(session, ImageSetRow.id, going))
                        .values(state=states.READY, images=[], attempts=0, losses=0, not_before=0.0)
                    )

    def _is_busy(self) -> ColumnElement[bool]:
        """Jobs that go on, or have ended since the sets were found."""
        return GOES_ON | (JobRow.ended_at > self._found_at)

    def _label_drawings(self) -> Marks:
        """The drawings of the labels of all jobs that have ended."""
        ended = select(JobRow.id).where(JobRow.deleted_at == 0, ~GOES_ON)
        with self._store.reading() as session:
            job_ids = session.scalars(ended).all()
        found = Marks()
        for job_id in job_ids:
            of_job = [UnitRow.job_id == job_id]
            for _, stored in self._read_rows(UnitRow.ordinal, UnitRow.outputs, where=of_job):
                for ref in _drawings_of_labels(self._artifacts, stored.get("score", "")):
                    found.add(ref)
        return found


def _drawings_of_labels(artifacts: ArtifactStore, ref: str) -> Iterator[str]:
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
