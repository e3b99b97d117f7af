"""The database behind the record: SQLite on one machine, PostgreSQL on a cluster."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from dnd.errors import BadSetting, StorageFull
from dnd_services.coordinator.store.turns import Turns

_WRITES = "dnd_writes"
"""Option of a connection that writes: what it does before it looks for SQLite's write lock."""
_WAIT_S = 30.0
"""How long a session waits for the write lock of SQLite, or for any other lock of it."""
_LOOK_MS = 5
_CONFLICTS = ("40001", "40P01")
"""What PostgreSQL calls a failed serialization, and a deadlock."""
_TRIES = 5
_FULL = "53100"
"""What PostgreSQL calls a disk that is full."""
_FULL_SQLITE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)

T = TypeVar("T")

log = logging.getLogger(__name__)


class Store:
    """Opens sessions on the record; each raises StorageFull where its disk has no room for them.

    Args:
        url: SQLAlchemy URL.
        clock: The time for leases where the database has no clock of its own (SQLite), seconds.

    Raises:
        BadSetting: The URL is no database that can be opened.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self.url = url
        self._clock = clock
        self.engine = _open(url)
        self._turns = Turns(f"{self.engine.url.database}.turns") if self.is_sqlite else None
        let_pass = self._turns.let_urgent_pass if self._turns else _go_on
        self._writer = self.engine.execution_options(**{_WRITES: let_pass})
        self._urgent_writer = self.engine.execution_options(**{_WRITES: _go_on})

    @property
    def shown_url(self) -> str:
        """The URL without its password, for messages."""
        return make_url(self.url).render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session on one consistent state of the record."""
        with (
            self._full_told(),
            Session(self.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def writing(self, *, is_urgent: bool = False) -> Iterator[Session]:
        """A session whose changes are one transaction, committed at the end of the block.

        On SQLite it takes the write lock at once, so that what it reads cannot change before it
        writes; on PostgreSQL rows are locked as they are read (`with_for_update`).

        Args:
            is_urgent: On SQLite it goes before others who want to write: somebody waits for it.
        """
        writer = self._urgent_writer if is_urgent else self._writer
        with (
            self._full_told(),
            Session(writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            with self._turns.urgent() if self._turns and is_urgent else nullcontext():
                session.connection()  # or the transaction would begin with the first statement
            yield session

    def write(self, function: Callable[[Session], T], *, is_urgent: bool = False) -> T:
        """Runs `function` in a session as of `writing`; its answer.

        It runs again, in a new session, where the database ended the first one to resolve a
        deadlock.
        """
        for _ in range(_TRIES - 1):
            try:
                with self.writing(is_urgent=is_urgent) as session:
                    return function(session)
            except OperationalError as error:
                if getattr(error.orig, "sqlstate", "") not in _CONFLICTS:
                    raise
                log.warning("again after a conflict with others who write: %s", error.orig)
        with self.writing(is_urgent=is_urgent) as session:
            return function(session)

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A session on one state of the record, however much it reads and others write."""
        how = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        engine = self.engine.execution_options(**how)
        with (
            self._full_told(),
            Session(engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def _full_told(self) -> Iterator[None]:
        """Turns what a driver says of a full disk into StorageFull."""
        try:
            yield
        except (OperationalError, sqlite3.OperationalError) as error:
            if not is_full(error):
                raise
            raise StorageFull(
                f"The disk of the record {self.shown_url} is full: free some space; work then "
                "goes on by itself."
            ) from error

    def now(self, session: Session) -> float:
        """Seconds since 1970 by the one clock that all leases go by."""
        if self.is_sqlite:
            return self._clock()
        return float(session.scalar(select(func.extract("epoch", func.clock_timestamp()))))  # type: ignore[arg-type]

    def close(self) -> None:
        self.engine.dispose()
        if self._turns:
            self._turns.close()


def is_full(error: OperationalError | sqlite3.OperationalError) -> bool:
    """Whether a database failed because there was no room on its disk."""
    cause = error.orig if isinstance(error, OperationalError) else error
    if isinstance(cause, sqlite3.OperationalError):
        return getattr(cause, "sqlite_errorcode", 0) in _FULL_SQLITE
    return getattr(cause, "sqlstate", "") == _FULL


def _open(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            if parsed.database in (None, "", ":memory:"):
                raise BadSetting(f"DND_DATABASE = {url!r}: expected a file, sqlite:////data/x.db.")
            engine = create_engine(
                parsed, connect_args={"timeout": _WAIT_S, "check_same_thread": False}, pool_size=20
            )
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        return create_engine(parsed, pool_size=20, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise BadSetting(f"DND_DATABASE = {url!r}: {error}.") from None


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = (
        None  # transactions are begun by `_begin_sqlite`, not by the driver
    )
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    let_pass = connection.get_execution_options().get(_WRITES)
    if let_pass:
        driver: Any = connection.connection.driver_connection
        _begin_writing(driver, let_pass)
    else:
        connection.exec_driver_sql("BEGIN")


def _go_on() -> None:
    """Lets nobody pass."""


def _begin_writing(driver: sqlite3.Connection, let_pass: Callable[[], None]) -> None:
    """Takes the write lock.

    Left to itself SQLite looks for it ever more seldom, ten times a second in the end, and while
    others write without a pause it may find it taken each time for half a minute.

    Args:
        let_pass: Called before each look.

    Raises:
        sqlite3.OperationalError: Others have written for `_WAIT_S`.
    """
    until = time.monotonic() + _WAIT_S
    driver.execute(f"PRAGMA busy_timeout = {_LOOK_MS}")
    try:
        while True:
            let_pass()
            try:
                driver.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() > until:
                    raise
    finally:
        driver.execute(f"PRAGMA busy_timeout = {round(_WAIT_S * 1000)}")
