"""Brings the tables up to date when the coordinator starts, one process at a time.

`python -m dnd_services.coordinator.migrate` does it without a coordinator.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import make_url, text

from dnd import logs
from dnd.errors import BadSetting, DndError, StorageFull
from dnd_services.coordinator.store import Store

_LOCK_NUMBER = 4_403_771  # any number, the same in all processes of this project


def migrate(store: Store) -> None:
    """Applies the migrations that the database does not have yet.

    Raises:
        BadSetting: The database cannot be opened, or a newer version of this project made it.
    """
    config = _config()
    scripts = ScriptDirectory.from_config(config)
    try:
        with _lock(store), store.engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
            connection.rollback()
            known = {script.revision for script in scripts.walk_revisions()}
            if current is not None and current not in known:
                raise BadSetting(
                    f"DND_DATABASE = {store.shown_url!r}: its tables are of revision {current}, "
                    "which this version does not know: start a newer version, or use another "
                    "database."
                )
            if current != scripts.get_current_head():
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
    except OSError as error:
        if error.errno == 28:
            raise StorageFull(f"The disk of {store.shown_url!r} is full: {error}.") from None
        raise BadSetting(f"DND_DATABASE = {store.shown_url!r}: {error}.") from None
    except Exception as error:
        if isinstance(error, BadSetting):
            raise
        raise BadSetting(f"DND_DATABASE = {store.shown_url!r} cannot be opened: {error}") from error


def wait_for_tables(store: Store, timeout_s: float) -> None:
    """Waits until a coordinator has brought the tables up to date; workers never change them.

    Raises:
        BadSetting: They are not there in time.
    """
    head = ScriptDirectory.from_config(_config()).get_current_head()
    until = time.monotonic() + timeout_s
    problem = "no coordinator has set it up"
    while time.monotonic() < until:
        try:
            with store.engine.connect() as connection:
                if MigrationContext.configure(connection).get_current_revision() == head:
                    return
        except Exception as error:  # the driver's own classes; what it was is in the message below
            problem = str(error).split("\n")[0]
        time.sleep(0.2)
    raise BadSetting(
        f"DND_DATABASE = {store.shown_url!r} is not ready after {timeout_s:.0f} s ({problem}): "
        "start the coordinator first."
    )


def main() -> int:
    """Brings the tables of DND_DATABASE up to date, for a release that changes them ahead of time.

    Returns the exit status.
    """
    store = None
    try:
        url = os.environ.get("DND_DATABASE", "")
        if "://" not in url:
            raise BadSetting(f"DND_DATABASE = {url!r}: expected an SQLAlchemy URL.")
        store = Store(url)
        migrate(store)
    except DndError as error:
        logs.say_why("migrate", error.message)
        return 2
    finally:
        if store is not None:
            store.close()
    return 0


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _lock(store: Store) -> Iterator[None]:
    """One process at a time: a lock beside SQLite's file, or in the server."""
    if store.is_sqlite:
        with Path(f"{make_url(store.url).database}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        return
    with store.engine.connect() as connection:
        connection.execute(text(f"SELECT pg_advisory_lock({_LOCK_NUMBER})"))
        try:
            yield
        finally:
            connection.execute(text(f"SELECT pg_advisory_unlock({_LOCK_NUMBER})"))


if __name__ == "__main__":
    sys.exit(main())
