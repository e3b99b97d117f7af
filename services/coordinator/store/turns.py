"""Who writes next on SQLite, where one transaction at a time can: callers before the work of jobs.

SQLite keeps no order among those who wait for its write lock. Each of them looks for it again and
again, and while workers write without a pause one of them may be unlucky for a second.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_LET_PASS_S = 0.2
_LOOK_S = 0.001


class Turns:
    """The turns of all who write one record, in this process and in others.

    Args:
        path: A file beside the record; it is locked while somebody urgent waits. Where it cannot be
            made nobody goes before others.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None

    def let_urgent_pass(self) -> None:
        """Returns once nobody urgent waits; soon in any case, so that work goes on beside them."""
        if self._file is None:
            self._file = self._open()
        if self._file is not None and _lock(self._file, fcntl.LOCK_SH):
            fcntl.flock(self._file, fcntl.LOCK_UN)

    @contextmanager
    def urgent(self) -> Iterator[None]:
        """While the block waits for the write lock, those who are not urgent do not ask for it."""
        file = self._open()  # one of its own: a lock is shared by all who have the same file open
        if file is None:
            yield
            return
        try:
            _lock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int | None:
        with suppress(OSError):
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return None


def _lock(file: int, how: int) -> bool:
    """Locks a file; gives up soon, as a process that was stopped may hold it."""
    until = time.monotonic() + _LET_PASS_S
    while time.monotonic() < until:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK_S)
        else:
            return True
    return False
