"""Starting, recognising and ending processes of our own, and never anybody else's.

A process is known by its id and the time it was started: ids are used again.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dnd.errors import BadSetting, ModelMissing
from dnd.stack.home import Running

if TYPE_CHECKING:
    import psutil

_TOLERANCE_S = 2.0
# Processes of this very command: they must be waited for, or they stay as zombies.
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Program:
    """How a process is started.

    Attributes:
        name: For example "captioner" or "worker-index".
        command: Program and arguments.
        environment: All of its environment.
        endpoints: File into which it writes where it listens; None if it writes none.
        port: TCP port that the stack chose for it; 0 if it chooses one by itself.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    endpoints: Path | None = None
    port: int = 0


def spawn(program: Program, log: Path, folder: Path) -> Running:
    """Starts a program in a session of its own, so that it outlives this command and its terminal.

    Args:
        log: Where its output goes; the log before is kept beside it.
        folder: Its working directory.

    Raises:
        ModelMissing: The program is not there.
    """
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    if program.endpoints:
        program.endpoints.unlink(missing_ok=True)
    with log.open("wb") as output:
        try:
            child = subprocess.Popen(
                program.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(program.environment),
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            raise ModelMissing(
                f"{program.name} cannot be started: {program.command[0]}: {error.strerror}."
            ) from None
    _CHILDREN[child.pid] = child
    try:
        created = _psutil().Process(child.pid).create_time()
    except _psutil().NoSuchProcess:
        created = time.time()
    return Running(program.name, child.pid, created, program.port)


def find(running: Running) -> psutil.Process | None:
    """The process, if it is alive and still the one that was started."""
    child = _CHILDREN.get(running.pid)
    if child is not None and child.poll() is not None:
        return None
    library = _psutil()
    try:
        process = library.Process(running.pid)
        if abs(process.create_time() - running.created_at_s) > _TOLERANCE_S:
            return None
        return process if _lives(process) else None
    except (library.NoSuchProcess, library.AccessDenied):
        return None


def exit_status(running: Running) -> int | None:
    """How a process ended that this command has started; None where that is not known."""
    child = _CHILDREN.get(running.pid)
    return child.poll() if child is not None else None


def end_all(processes: Sequence[Running], grace_s: float) -> list[str]:
    """SIGTERM to all, SIGKILL to those that still live after `grace_s`; the names of the latter."""
    library = _psutil()
    alive = {one: process for one in processes if (process := find(one))}
    families = {one: [process, *_children(process)] for one, process in alive.items()}
    for process in alive.values():
        try:
            process.terminate()
        except library.NoSuchProcess:
            continue
    until = time.monotonic() + grace_s
    while any(find(one) for one in alive) and time.monotonic() < until:
        time.sleep(0.05)
    killed = [one for one in alive if find(one)]
    for family in families.values():  # a parent that has ended may have left a child behind
        for process in family:
            try:
                process.kill()
            except library.NoSuchProcess:
                continue
    until = time.monotonic() + 5  # SIGKILL takes effect a moment after it is sent
    rest = [process for family in families.values() for process in family]
    while any(_lives(process) for process in rest) and time.monotonic() < until:
        time.sleep(0.05)
    return [one.name for one in killed]


def memory_bytes(running: Running) -> int:
    """Resident memory of a process and its children; 0 if it is gone."""
    process = find(running)
    if process is None:
        return 0
    library = _psutil()
    total = 0
    for one in (process, *_children(process)):
        try:
            total += int(one.memory_info().rss)
        except library.NoSuchProcess:
            continue
    return total


def _lives(process: psutil.Process) -> bool:
    """Whether it still runs: one that has ended may wait long for a parent to ask about it."""
    library = _psutil()
    try:
        return bool(process.is_running() and process.status() != library.STATUS_ZOMBIE)
    except library.NoSuchProcess:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except _psutil().NoSuchProcess:
        return []


def _psutil() -> ModuleType:
    try:
        import psutil
    except ModuleNotFoundError:
        raise BadSetting(
            "A local stack needs psutil: pip install 'describe-and-dissect[local]'."
        ) from None
    return psutil
