"""What a task does: claim, call the stage function, write; nothing else decides what is true."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from sqlalchemy.orm import Session

from dnd.clients import Calls, Services
from dnd.errors import DndError, Internal, StorageFull
from dnd_services.coordinator import states
from dnd_services.coordinator.bench import Bench
from dnd_services.coordinator.claiming import Group, claim, read_groups
from dnd_services.coordinator.compare import compare_layer
from dnd_services.coordinator.frozen import context_of, plan_of
from dnd_services.coordinator.handlers import handle
from dnd_services.coordinator.keeper import LeaseKeeper
from dnd_services.coordinator.outcomes import Outcome, Report
from dnd_services.coordinator.outputs import artifact_of
from dnd_services.coordinator.settings import QueueSettings
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.store.claims import Ticket
from dnd_services.coordinator.store.results import find_results
from dnd_services.coordinator.tracing import GroupSpan, traced
from dnd_services.coordinator.writing import write_report

log = logging.getLogger(__name__)

_ROOM_WAIT_S = 600.0
_LOOK_FOR_ROOM_S = 0.5


class TaskRunner:
    """Runs tasks of one worker process, in as many threads as call it.

    Args:
        owner: Name of the process in the record.
        nudge: Called when the dispatcher may have something new to do.
        count_failures: Called with a stage and the errors of its items.
    """

    def __init__(
        self,
        store: Store,
        services: Services,
        settings: QueueSettings,
        keeper: LeaseKeeper,
        owner: str,
        nudge: Callable[[], None],
        count_failures: Callable[[str, Sequence[DndError]], None] = lambda stage, errors: None,
    ) -> None:
        self._store = store
        self._services = services
        self._settings = settings
        self._keeper = keeper
        self._owner = owner
        self._nudge = nudge
        self._count_failures = count_failures

    def run(self, stage: str, tickets: Sequence[Ticket], *, is_urgent: bool = False) -> int:
        """Does what is still to be done of a task; answers how many items were written.

        Delivered twice, the second run finds nothing to claim. Where the record's disk is full,
        the message counts as lost, as that of a worker that went away.

        Args:
            is_urgent: It is of an interactive job.
        """
        try:
            taken = self._store.write(
                lambda session: self._claim(session, stage, tickets), is_urgent=is_urgent
            )
        except StorageFull as error:
            log.warning("stage %s: nothing is claimed: %s", stage, error.message)
            return 0
        with self._store.reading() as session:
            groups = read_groups(session, stage, taken)
        num_written = 0
        with self._keeper.holding(stage, taken) as calls:
            for group in groups:
                with traced(self._store, group) as opened:
                    num_written += self._run_group(group, calls, opened)
                self._nudge()
        return num_written

    def _claim(self, session: Session, stage: str, tickets: Sequence[Ticket]) -> list[Ticket]:
        until = self._store.now(session) + self._settings.lease_s
        return claim(session, stage, tickets, self._owner, until)

    def _run_group(self, group: Group, calls: Calls, opened: GroupSpan) -> int:
        with self._store.reading() as session:
            started_at = self._store.now(session)
        started = time.perf_counter()
        failed_whole = False
        try:
            outcomes = self._work(group, calls)
            if len(outcomes) != len(group.rows):
                raise Internal(f"{len(group.rows)} items gave {len(outcomes)} results.")
        except DndError as error:
            outcomes, failed_whole = [error] * len(group.rows), True
        except Exception as error:
            log.exception("stage %s failed", group.stage)
            defect = Internal(f"Stage {group.stage}: {type(error).__name__}: {error}"[:500])
            outcomes, failed_whole = [defect] * len(group.rows), True
        report = Report(outcomes, failed_whole, started_at, time.perf_counter() - started)
        num_written = self._write(group, report)
        failures = [one for one in outcomes if isinstance(one, DndError)]
        self._count_failures(group.stage, failures)
        opened.end(report, num_written)
        return num_written

    def _write(self, group: Group, report: Report) -> int:
        """Writes a report, as soon as there is room for it: what was computed is not thrown away.

        Raises:
            StorageFull: There was none for long; the work is done again after its lease.
        """
        until = 0.0
        while True:
            try:
                return self._store.write(
                    lambda session: write_report(
                        session, self._settings, group, report, self._store.now(session)
                    ),
                    is_urgent=not group.job.is_batch,
                )
            except StorageFull as error:
                if not until:
                    until = time.monotonic() + _ROOM_WAIT_S
                    log.warning("stage %s: results wait: %s", group.stage, error.message)
                elif time.monotonic() > until:
                    raise
                time.sleep(_LOOK_FOR_ROOM_S)

    def _work(self, group: Group, calls: Calls) -> Sequence[Outcome]:
        plan = plan_of(group.job)
        services = self._services.for_context(context_of(group.job), calls)
        if (group.stage, group.scope) == ("score", states.LAYER):
            return [
                compare_layer(
                    self._store, services, plan, group.job, group.layers[work.ordinal], ticket
                )
                for work, ticket in zip(group.works, group.tickets, strict=True)
            ]
        recall = self._recall if self._settings.reuse_results else None
        return handle(Bench(services, self._settings.share_drawings, recall), plan, group)

    def _recall(self, keys: Sequence[str]) -> dict[str, str]:
        """References of results that are known by key, and still there."""
        with self._store.reading() as session:
            found = find_results(session, keys)
        renew = self._services.artifacts.renew
        there = {pack for pack in set(map(artifact_of, found.values())) if renew(pack)}
        return {key: ref for key, ref in found.items() if artifact_of(ref) in there}
