"""Keeps what a worker process holds: renews its leases, and says that the process is there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from dnd.clients import Calls
from dnd.errors import DndError, StorageFull
from dnd_services.coordinator.claiming import table_of
from dnd_services.coordinator.models import ImageSetRow, WorkRow
from dnd_services.coordinator.settings import QueueSettings
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.store.claims import Ticket, is_wanted, renew
from dnd_services.coordinator.store.leases import beat, leave

log = logging.getLogger(__name__)


class LeaseKeeper:
    """One thread that renews the leases of all tasks under way in this process.

    Args:
        stages: The stages that this process works for; empty for none (tests).
        threads: Tasks at the same time.
    """

    def __init__(
        self,
        store: Store,
        settings: QueueSettings,
        replica: str,
        stages: Sequence[str] = (),
        threads: int = 0,
    ) -> None:
        self._store = store
        self._settings = settings
        self._replica = replica
        self._stages = stages
        self._threads = threads
        self._lock = threading.Lock()
        self._held: dict[Calls, tuple[str, Sequence[Ticket]]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Starts the thread, which registers the process."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and signs the process off."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(StorageFull), self._store.writing() as session:  # silence tells the same
            leave(session, self._replica)

    @contextmanager
    def holding(self, stage: str, tickets: Sequence[Ticket]) -> Iterator[Calls]:
        """Renews the leases of `tickets` until the block ends.

        The block makes its calls through what it is given: they are ended when every job that needs
        the work is cancelled.
        """
        calls = Calls()
        with self._lock:
            self._held[calls] = (stage, tickets)
        try:
            yield calls
        finally:
            with self._lock:
                del self._held[calls]

    def renew_all(self) -> None:
        """Renews every lease of this process once; ends the calls that nobody needs any more."""
        with self._lock:
            held = list(self._held.items())
        if not held:
            return
        with self._store.writing() as session:
            until = self._store.now(session) + self._settings.lease_s
            # In one order for all who lock rows: by table, then by id.
            for table in (WorkRow, ImageSetRow):
                of_table = [
                    ticket
                    for _, (stage, tickets) in held
                    if table_of(stage) is table
                    for ticket in tickets
                ]
                renew(session, table, of_table, until)
        with self._store.reading() as session:  # the time that others cannot write stays short
            unwanted = [
                calls
                for calls, (stage, tickets) in held
                if not is_wanted(session, table_of(stage), tickets)
            ]
        for calls in unwanted:
            calls.cancel()

    def _beat(self) -> None:
        if not self._stages:
            return
        with self._store.writing() as session:
            now = self._store.now(session)
            beat(session, self._replica, self._stages, self._threads, now)

    def _run(self) -> None:
        """Neither a locked database nor anything else may end this thread: leases would expire."""
        wait_s = min(self._settings.renew_s, self._settings.heartbeat_s)
        while not self._stop.is_set():
            try:
                self._beat()
                self.renew_all()
            except DndError as error:  # the record's disk is full
                log.warning("leases could not be renewed: %s", error.message)
            except Exception:
                log.exception("leases could not be renewed")
            self._stop.wait(wait_s)
