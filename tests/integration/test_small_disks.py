"""Runs `tests/small_disks` in a namespace of its own, in which a full disk can be made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


@pytest.fixture(scope="module")
def can_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("disk")
    try:
        tried = subprocess.run(
            [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        pytest.skip(f"no small disk can be mounted without {error.filename}")
    if tried.returncode:
        pytest.skip(f"no small disk can be mounted here: {tried.stderr.strip()}")


@pytest.mark.usefixtures("can_mount")
@pytest.mark.parametrize("name", ["artifacts", "service", "coordinator"])
def test_full_disk_loses_nothing(name: str, tmp_path: Path) -> None:
    file = ROOT / "tests" / "small_disks" / f"test_{name}.py"
    options = ["-p", "no:cacheprovider", "--basetemp", str(tmp_path / "inside")]
    inside = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "pytest", *options, str(file)],
        cwd=ROOT,
        env=os.environ | {"DND_TEST_SMALL_DISKS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert inside.returncode == 0, inside.stdout + inside.stderr
    assert " passed" in inside.stdout
    assert "skipped" not in inside.stdout
