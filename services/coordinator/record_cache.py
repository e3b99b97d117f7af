"""Records of units as JSON, kept in memory: what is looked at is looked at again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from dnd.artifacts import ArtifactStore
from dnd_services.coordinator import views
from dnd_services.coordinator.models import JobRow
from dnd_services.coordinator.store.reading import UnitView

MAX_KEPT_BYTES = 64 * 2**20


class RecordCache:
    """Makes the record of a unit once for as long as its row stays as it is.

    Args:
        artifacts: Where the evidence lies.
        on_made: Called with the job's id and each record that is made.
        max_kept_bytes: Of records in memory; the least recently used ones are forgotten.
    """

    def __init__(
        self,
        artifacts: ArtifactStore,
        on_made: Callable[[str, str], None],
        max_kept_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        self._artifacts = artifacts
        self._on_made = on_made
        self._max_kept_bytes = max_kept_bytes
        self._num_kept_bytes = 0
        self._kept: OrderedDict[tuple[str, int], tuple[Hashable, str]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, job: JobRow, view: UnitView) -> str:
        """The record of a unit.

        Raises:
            NotFound: Its evidence is lost.
        """
        key, version = (job.id, view.ordinal), _version_of(job, view)
        with self._lock:
            found = self._kept.get(key)
            if found is not None and found[0] == version:
                self._kept.move_to_end(key)
                return found[1]
        text = views.record_json(job, view, self._artifacts, views.error_of(job, view))
        self._on_made(job.id, text)
        self._keep(key, version, text)
        return text

    def _keep(self, key: tuple[str, int], version: Hashable, text: str) -> None:
        with self._lock:
            if key in self._kept:
                self._num_kept_bytes -= len(self._kept.pop(key)[1])
            self._kept[key] = (version, text)
            self._num_kept_bytes += len(text)
            while self._num_kept_bytes > self._max_kept_bytes:
                _, (_, old) = self._kept.popitem(last=False)
                self._num_kept_bytes -= len(old)


def _version_of(job: JobRow, view: UnitView) -> Hashable:
    """Differs as soon as anything does that a record is made from; outputs never change."""
    row = view.row
    if row is None:
        return (view.state, job.error)
    return (
        *(view.state, row.error, row.auc, row.percentile, job.error, tuple(row.labels)),
        *(tuple(sorted(row.outputs.items())), tuple(sorted(row.timings.items()))),
    )
