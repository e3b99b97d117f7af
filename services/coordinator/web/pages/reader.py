"""What the pages of the explorer show, read from the record and the artifact store."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from sqlalchemy.orm import Session

from dnd.artifacts import ArtifactStore
from dnd.errors import DndError, NotFound
from dnd.explorer.histograms import Histogram, make_histogram
from dnd.explorer.links import ServerLinks, UnitQuery
from dnd.explorer.mosaics import NUM_TILES
from dnd.explorer.views import Card, boxed_sources
from dnd.jobs import Job, UnitState, job_from_message
from dnd.report.class_names import is_hit
from dnd.types import RequestContext, UnitExemplars
from dnd_services.coordinator import outputs, views
from dnd_services.coordinator.models import JobRow
from dnd_services.coordinator.searching import Hit, find_by_meaning
from dnd_services.coordinator.servicer import CoordinatorServicer
from dnd_services.coordinator.store import browsing, jobs, reading
from dnd_services.coordinator.store.reading import UnitView
from dnd_services.coordinator.web.pages.class_names import ClassNames, Names

T = TypeVar("T")
MAX_RECORDS = 128
MAX_SIZES = 20_000


class Reader:
    """Reads on behalf of one tenant; all that it does blocks.

    Args:
        servicer: Of the API, whose record and artifacts are read.
        shelf: What was read before.
    """

    def __init__(self, servicer: CoordinatorServicer, tenant: str, shelf: Shelf) -> None:
        self._servicer = servicer
        self._tenant = tenant or "default"
        self._shelf = shelf

    @property
    def artifacts(self) -> ArtifactStore:
        return self._servicer.services.artifacts

    def read(self, function: Callable[[Session], T]) -> T:
        """What a function finds in the record."""
        with self._servicer.store.reading() as session:
            return function(session)

    def find(self, session: Session, job_id: str) -> JobRow:
        """A job of the tenant. Raises NotFound."""
        return jobs.find_job(session, self._tenant, job_id)

    def job(self, session: Session, row: JobRow) -> Job:
        """A job and how far it is."""
        (job,) = self._jobs(session, [row])
        return job

    def list_jobs(self, session: Session, before: str, limit: int) -> list[Job]:
        """Jobs of the tenant, newest first."""
        return self._jobs(session, jobs.list_jobs(session, self._tenant, before, limit))

    def _jobs(self, session: Session, rows: Sequence[JobRow]) -> list[Job]:
        return [job_from_message(one) for one in self._servicer.job_messages(session, rows)]

    def search(
        self, session: Session, words: str, start: int, limit: int
    ) -> tuple[list[tuple[JobRow, UnitView]], int]:
        """Units of all jobs of the tenant by words of their labels."""
        return browsing.search_units(session, self._tenant, words, start, limit)

    def search_by_meaning(self, text: str, limit: int) -> list[Hit]:
        """Units of all jobs of the tenant whose labels mean much the same, nearest first.

        Raises:
            Transient: The scorer does not answer.
        """
        services = self._servicer.services.for_context(RequestContext(tenant=self._tenant))
        scope = (self._tenant, "")
        return find_by_meaning(self._servicer.store, services, scope, text, 0, limit)

    def record(self, session: Session, job: JobRow, layer: str, unit: int) -> dict[str, Any]:
        """The full record of a unit; of one that has not ended, as far as it has come.

        Raises:
            NotFound: The job has no such unit, or its evidence is lost.
        """
        view = reading.find_unit(session, job, layer, unit)
        stored = view.row.outputs if view.row else {}
        key = (job.id, view.ordinal, view.state, view.row and view.row.auc, *sorted(stored.items()))

        def make() -> dict[str, Any]:
            return views.read_record(job, view, self.artifacts, views.error_of(job, view))

        return self._shelf.records.get(key, make)

    def sizes(self, record: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
        """Width and height of the images that crops are drawn on, but of those that are gone."""
        found: dict[str, tuple[int, int]] = {}
        for ref in boxed_sources(record):
            try:
                found[ref] = self._shelf.sizes.get((ref,), lambda ref=ref: self._size(ref))  # type: ignore[misc]
            except (DndError, OSError):
                continue
        return found

    def _size(self, ref: str) -> tuple[int, int]:
        """Of an image as decoded, upright; only its header is read."""
        with Image.open(io.BytesIO(self.artifacts.get_bytes(ref))) as image:
            turned = image.getexif().get(0x0112, 1) >= 5
            return (image.height, image.width) if turned else image.size

    def now(self, session: Session) -> float:
        """The time by which jobs are dated, seconds since 1970."""
        return self._servicer.store.now(session)

    def histogram(self, view: UnitView, record: Mapping[str, Any]) -> Histogram | None:
        """The unit's activations on the probe images; None where they were not kept."""
        ref = (view.row.outputs if view.row else {}).get("exemplars")
        if not ref:
            return None
        try:
            exemplars = outputs.load(self.artifacts, ref, UnitExemplars)
            if not exemplars.activations_ref:
                return None
            values = np.asarray(self.artifacts.get_array(exemplars.activations_ref))
        except DndError:
            return None
        drawings = (record.get("calibration") or {}).get("activations") or []
        return make_histogram(values, [one["activation"] for one in record["exemplars"]], drawings)

    def card(
        self,
        job: JobRow,
        view: UnitView,
        links: ServerLinks,
        query: UnitQuery | None = None,
    ) -> Card:
        """A unit as a list shows it."""
        row = view.row
        labels = row.labels if row else []
        stored = row.outputs if row else {}
        seen = stored.get("exemplars") or stored.get("dissect") or ""
        true_class = self._class_of(job, view)
        return Card(
            layer=view.layer,
            unit=view.unit,
            state=view.state.value,
            label=labels[0] if labels else "",
            second=labels[1] if len(labels) > 1 else "",
            percentile=row.percentile if row else None,
            auc=row.auc if row else None,
            error=views.error_of(job, view),
            stage=row.stage if row else "",
            href=links.unit(job.id, view.layer, view.unit, query),
            mosaic=links.mosaic(job.id, view.layer, view.unit, seen[-12:])
            if seen and view.state not in (UnitState.DEAD, UnitState.TIED)
            else "",
            true_class=true_class,
            hit=is_hit(labels[0], true_class) if labels and true_class else None,
        )

    def _class_of(self, job: JobRow, view: UnitView) -> str:
        names = self.class_names(job).get(view.layer, ())
        return names[view.unit] if view.unit < len(names) else ""

    def class_names(self, job: JobRow) -> Names:
        """Names of the classes by layer, of layers whose units stand for some."""
        return self._shelf.class_names.of(job, self._servicer.services)

    def exemplar_refs(self, session: Session, job: JobRow, view: UnitView) -> Sequence[str]:
        """The exemplars of a unit, strongest first, as its mosaic shows them."""
        stored = view.row.outputs if view.row else {}
        if ref := stored.get("exemplars"):
            found = outputs.load(self.artifacts, ref, UnitExemplars)
            refs = [one.image for one in found.exemplars]
        else:
            record = self.record(session, job, view.layer, view.unit)
            refs = [one["image"] for one in record["exemplars"]]
        if not refs:
            raise NotFound(f"Unit {view.unit} of layer {view.layer!r} has no exemplars.")
        return refs[:NUM_TILES]


class Memory:
    """Values by key, the least recently used ones forgotten."""

    def __init__(self, max_values: int) -> None:
        self._max_values = max_values
        self._values: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """The value of a key, made if it is not there; whoever asks meanwhile makes it too."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                found: T = self._values[key]
                return found
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._max_values:
                self._values.popitem(last=False)
        return value


class Shelf:
    """What pages share: records and sizes of images, which do not change under their keys."""

    def __init__(self) -> None:
        self.records = Memory(MAX_RECORDS)
        self.sizes = Memory(MAX_SIZES)
        self.class_names = ClassNames()
