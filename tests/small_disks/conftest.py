"""Tests on disks that are really full; `test_small_disks.py` runs them where disks can be made.

Each disk is a small tmpfs in a mount namespace that this process and its children have to
themselves.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest

MIB = 1 << 20

collect_ignore_glob = [] if os.environ.get("DND_TEST_SMALL_DISKS") else ["test_*.py"]


@dataclass(frozen=True)
class Disk:
    """A disk of a few MiB."""

    folder: Path

    def fill(self) -> None:
        """Leaves not a byte free."""
        with (self.folder / "ballast").open("ab", buffering=0) as file:
            for size in (MIB, 4096, 1):
                while _fits(file, size):
                    pass

    def free(self) -> None:
        """Makes room again."""
        (self.folder / "ballast").unlink()


def _fits(file: BinaryIO, size: int) -> bool:
    """Writes so many bytes if there is room for some of them."""
    try:
        return bool(file.write(bytes(size)))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False


@pytest.fixture
def make_disk(tmp_path: Path) -> Callable[[str, int], Disk]:
    """Mounts a disk of so many MiB, by name; it goes with the namespace."""

    def make(name: str, num_mib: int) -> Disk:
        folder = tmp_path / name
        folder.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={num_mib}m", "tmpfs", str(folder)], check=True
        )
        return Disk(folder)

    return make
