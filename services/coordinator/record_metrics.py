"""Prometheus metrics of the record, read when asked for: every coordinator shows the same."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dnd.jobs import STAGES, JobState
from dnd_services.coordinator.models import JobRow
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.store.health import read_pauses
from dnd_services.coordinator.store.leases import read_capacity
from dnd_services.coordinator.store.reading import read_backlog, read_open_items
from dnd_services.coordinator.store.results import read_reuse
from dnd_services.coordinator.store.spending import read_total_usage

log = logging.getLogger(__name__)


class RecordCollector(Collector):
    """Backlog, jobs, workers and use, as the record has them.

    A record that cannot be read is told by `dnd_record_up` alone; the other pages of the process
    stay readable.

    Args:
        silent_s: A worker that has been silent for this long is not counted, seconds.
    """

    def __init__(self, store: Store, silent_s: float) -> None:
        self._store = store
        self._silent_s = silent_s

    def describe(self) -> list[Metric]:
        """Nothing: the record is not read before somebody asks."""
        return []

    def collect(self) -> Iterator[Metric]:
        try:
            with self._store.reading() as session:
                found = list(self._read(session))
        except Exception as error:  # the driver's own classes
            log.warning("the record cannot be read for metrics: %s", str(error).split("\n")[0])
            found = []
        yield GaugeMetricFamily(
            "dnd_record_up", "Whether the record can be read", float(bool(found))
        )
        yield from found

    def _read(self, session: Session) -> Iterator[Metric]:
        yield _by(
            "stage",
            "dnd_backlog_seconds",
            "Estimated seconds of work that waits or is under way",
            read_backlog(session),
        )
        yield _by(
            "stage", "dnd_open_items", "Items that wait or are under way", read_open_items(session)
        )
        capacity = read_capacity(session, self._store.now(session), self._silent_s)
        yield _by("stage", "dnd_worker_threads", "Threads of live workers", _all_stages(capacity))
        held = Counter(pause.stage for pause in read_pauses(session))
        yield _by("stage", "dnd_held_back", "Reasons that hold the stage back", _all_stages(held))
        yield _by("state", "dnd_jobs", "Jobs that are kept", _count_jobs(session))
        used = read_total_usage(session)
        tokens = CounterMetricFamily("dnd_used_tokens", "Language model tokens", labels=["kind"])
        tokens.add_metric(["input"], used.num_input_tokens)
        tokens.add_metric(["output"], used.num_output_tokens)
        yield tokens
        results = GaugeMetricFamily(
            "dnd_results",
            "Results of stages of the jobs there are: computed, or reused as they were there",
            labels=["stage", "how"],
        )
        for key, num in read_reuse(session).items():
            results.add_metric(key, num)
        yield results
        yield CounterMetricFamily("dnd_used_dollars", "Their price", used.dollars)
        yield CounterMetricFamily("dnd_used_images", "Drawings", used.num_images)
        yield CounterMetricFamily("dnd_ended_units", "Units that have ended", used.num_units)


def _all_stages(numbers: Mapping[str, int]) -> dict[str, int]:
    return {stage: numbers.get(stage, 0) for stage in STAGES}


def _count_jobs(session: Session) -> dict[str, int]:
    statement = (
        select(JobRow.state, func.count()).where(JobRow.deleted_at == 0).group_by(JobRow.state)
    )
    counts = {state: int(num) for state, num in session.execute(statement)}
    return {state.value: counts.get(state.value, 0) for state in JobState}


def _by(label: str, name: str, text: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
