"""What a task does: claim, call the stage function, write; nothing else decides what is true."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from dnd.clients import Calls, Services
from dnd.errors import DndError, Internal
from dnd_services.coordinator import states
from dnd_services.coordinator.claiming import Group, claim
from dnd_services.coordinator.compare import compare_layer
from dnd_services.coordinator.frozen import context_of, plan_of
from dnd_services.coordinator.handlers import Bench, handle
from dnd_services.coordinator.keeper import LeaseKeeper
from dnd_services.coordinator.settings import QueueSettings
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.store.claims import Ticket
from dnd_services.coordinator.writing import Outcome, Report, write_report

log = logging.getLogger(__name__)


class TaskRunner:
    """Runs tasks of one worker process, in as many threads as call it.

    Args:
        owner: Name of the process in the record.
        nudge: Called when the dispatcher may have something new to do.
    """

    def __init__(
        self,
        store: Store,
        services: Services,
        settings: QueueSettings,
        keeper: LeaseKeeper,
        owner: str,
        nudge: Callable[[], None],
    ) -> None:
        self._store = store
        self._services = services
        self._settings = settings
        self._keeper = keeper
        self._owner = owner
        self._nudge = nudge

    def run(self, stage: str, tickets: Sequence[Ticket]) -> int:
        """Does what is still to be done of a task; answers how many items were written.

        Delivered twice, the second run finds nothing to claim.
        """
        with self._store.writing() as session:
            now = self._store.now(session)
            until = now + self._settings.lease_s
            groups = claim(session, stage, tickets, self._owner, until)
        num_written = 0
        held = [ticket for group in groups for ticket in group.tickets]
        with self._keeper.holding(stage, held) as calls:
            for group in groups:
                num_written += self._run_group(group, calls)
                self._nudge()
        return num_written

    def _run_group(self, group: Group, calls: Calls) -> int:
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
        with self._store.writing() as session:
            num_written = write_report(
                session, self._settings, group, report, self._store.now(session)
            )
        if num_written < len(group.rows):
            log.info(
                "stage %s: %d of %d results came too late",
                group.stage,
                len(group.rows) - num_written,
                len(group.rows),
            )
        return num_written

    def _work(self, group: Group, calls: Calls) -> Sequence[Outcome]:
        plan = plan_of(group.job)
        services = self._services.for_context(context_of(group.job), calls)
        if (group.stage, group.scope) == ("score", states.LAYER):
            return [
                compare_layer(self._store, services, plan, group.job, group.layers[work.ordinal])
                for work in group.works
            ]
        return handle(Bench(services, self._settings.share_drawings), plan, group)
