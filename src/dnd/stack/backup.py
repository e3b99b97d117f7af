"""A copy of a stack's home, made while it runs; the copy is a home that can be started."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dnd.errors import BadSetting, FailedPrecondition, NotFound, Unavailable
from dnd.stack.home import Home

_SETTINGS = ("models.yaml", "probes.yaml")


@dataclass(frozen=True)
class Backup:
    """What a copy has, and what of it was copied now.

    Attributes:
        num_new: Artifacts that were not there from an earlier copy.
    """

    num_artifacts: int
    num_new: int
    num_bytes: int


def back_up(home: Home, folder: Path) -> Backup:
    """Copies what cannot be made again: the record, artifacts, models.yaml and probes.yaml.

    The record comes first: artifacts only grow meanwhile, so that all that the copy names is in
    it. Into a folder with an earlier copy only new artifacts are copied.

    Raises:
        NotFound: There is no record in the home.
        BadSetting: `folder` cannot be written, or is the home itself.
        FailedPrecondition: A stack was started in `folder`, or the one that runs in the home keeps
            its record or artifacts elsewhere.
        Unavailable: The record cannot be read.
    """
    record = home.path / "coordinator.db"
    config = home.read_state().config
    for name in ("database", "artifacts"):
        if config.get(name):
            raise FailedPrecondition(
                f"The stack in {home.path} keeps its {name} elsewhere: copy both with the tools of "
                "those services (docs/operations.md, Backup)."
            )
    if not record.is_file():
        raise NotFound(f"{home.path} has no record to copy: no stack was started in it.")
    target = Home(folder)
    if target.path.resolve() == home.path.resolve():
        raise BadSetting(f"{folder} is the home itself: name another folder.")
    if target.run.exists():
        raise FailedPrecondition(
            f"A stack was started in {target.path}, which is no copy any more: name another folder."
        )
    try:
        target.artifacts.mkdir(parents=True, exist_ok=True)
        copy_record(record, target.path / record.name)
        for name in _SETTINGS:
            if (home.path / name).is_file():
                shutil.copy2(home.path / name, target.path / name)
        return copy_artifacts(home.artifacts, target.artifacts)
    except OSError as error:
        raise BadSetting(f"{target.path} cannot be written: {error.strerror}.") from None


def copy_record(source: Path, target: Path) -> None:
    """Copies an SQLite record as it is at one moment, while others read and write it.

    Raises:
        Unavailable: It cannot be read, or what it is copied to cannot be written.
    """
    draft = target.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as record:
            record.execute("VACUUM INTO ?", (str(draft),))
    except sqlite3.Error as error:
        raise Unavailable(f"The record {source} cannot be copied to {target}: {error}.") from None
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(target)


def copy_artifacts(source: Path, target: Path) -> Backup:
    """Copies a folder of artifacts, while others write to it; what is there already stays.

    Names are copied before contents, so that what they point to is copied too.

    Raises:
        OSError: `target` cannot be written.
    """
    for path in _files(source / "keys"):
        _copy(path, target / path.relative_to(source))
    num_artifacts = num_new = num_bytes = 0
    for path in _files(source / "blobs"):
        copied = target / path.relative_to(source)
        size = path.stat().st_size
        if not copied.exists() or copied.stat().st_size != size:
            _copy(path, copied)
            num_new += 1
        num_artifacts += 1
        num_bytes += size
    return Backup(num_artifacts, num_new, num_bytes)


def _files(folder: Path) -> Iterator[Path]:
    """What the store has put there; drafts of its writers have longer names."""
    return (path for path in folder.glob("??/*") if len(path.name) == 64)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
