"""The thread in which the coordinator dispatches and reconciles while it leads."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress

from dnd.errors import DndError, StorageFull
from dnd_services.coordinator.dispatcher import Dispatcher
from dnd_services.coordinator.nudge import Nudge
from dnd_services.coordinator.reconciler import Reconciler
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.store.leases import lead, step_down

log = logging.getLogger(__name__)

_AFTER_FAILURE_S = 1.0
_LEAST_WAIT_S = 0.01
"""0 would be for ever."""


class Leader:
    """Leads while nobody else does, and stands by otherwise.

    Args:
        owner: Name of this process in the record.
    """

    def __init__(
        self,
        store: Store,
        settings: CoordinatorSettings,
        dispatcher: Dispatcher,
        reconciler: Reconciler,
        nudge: Nudge,
        owner: str,
    ) -> None:
        self._store = store
        self._settings = settings
        self._dispatcher = dispatcher
        self._reconciler = reconciler
        self._nudge = nudge
        self._owner = owner
        self._stop = threading.Event()
        self._leads_until = 0.0
        self._swept_at = 0.0
        self._thread = threading.Thread(target=self._run, name="leader", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and lets a standby lead."""
        self._stop.set()
        self._nudge.ring()
        self._thread.join()
        with suppress(StorageFull), self._store.writing() as session:  # the lease ends by itself
            step_down(session, self._owner)

    def _run(self) -> None:
        """Nothing may end this thread but `close`: without it no job would go on."""
        while not self._stop.is_set():
            try:
                if not self._leads():
                    self._stop.wait(self._settings.leader_s / 4)
                    continue
                self._dispatcher.run_round()
                if self._sweeps_in_s() <= 0:
                    self._swept_at = time.monotonic()
                    if self._reconciler.sweep():
                        continue  # what was found is handed out at once
                self._nudge.wait(
                    min(self._settings.poll_s, max(self._sweeps_in_s(), _LEAST_WAIT_S))
                )
            except DndError as error:  # the broker is away, or a disk is full
                log.warning("%s", error.message)
                self._stop.wait(_AFTER_FAILURE_S)
            except Exception:
                log.exception("a round failed")
                self._stop.wait(_AFTER_FAILURE_S)

    def _sweeps_in_s(self) -> float:
        """Time until the next sweep is due, seconds."""
        return self._swept_at + self._settings.sweep_s - time.monotonic()

    def _leads(self) -> bool:
        """Renews the lease when a third of it is over."""
        if time.monotonic() < self._leads_until - self._settings.leader_s * 2 / 3:
            return True
        asked_at = time.monotonic()
        with self._store.writing() as session:
            leads = lead(session, self._owner, self._store.now(session), self._settings.leader_s)
        if leads and not self._leads_until:
            log.info("this process leads")
        elif not leads and self._leads_until:
            log.warning("another process leads")
        self._leads_until = asked_at + self._settings.leader_s if leads else 0.0
        return leads
