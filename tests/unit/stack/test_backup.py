"""dnd backup: a copy of a home that is in use."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from dnd.artifacts import ArtifactStore
from dnd.cli import main
from dnd.errors import BadSetting, FailedPrecondition, NotFound, Unavailable
from dnd.stack import Backup, Home, back_up
from dnd.stack.backup import copy_record


@pytest.fixture
def used(home: Home) -> Home:
    """A home with a record, an artifact that has a name, and settings."""
    home.make()
    with closing(sqlite3.connect(home.path / "coordinator.db")) as record:
        record.execute("PRAGMA journal_mode = WAL")
        record.execute("CREATE TABLE pairs (first INTEGER, second INTEGER)")
        record.commit()
    store = ArtifactStore(home.artifacts)
    store.remember("caption of it", store.put_bytes(b"an image"))
    (home.path / "probes.yaml").write_text("probes: {}")
    return home


def test_the_copy_is_a_home_and_is_brought_up_to_date(used: Home, tmp_path: Path) -> None:
    target = tmp_path / "copies" / "monday"
    assert back_up(used, target) == Backup(num_artifacts=1, num_new=1, num_bytes=8)
    copied = ArtifactStore(Home(target).artifacts)
    ref = copied.recall("caption of it")
    assert ref is not None
    assert copied.get_bytes(ref) == b"an image"
    assert (target / "probes.yaml").read_text() == "probes: {}"
    assert not (target / "models.yaml").exists()
    ArtifactStore(used.artifacts).put_bytes(b"another one")
    # What a copy that was interrupted has left.
    (target / "artifacts/blobs" / ref[7:9] / ref[7:]).write_bytes(b"an im")
    assert back_up(used, target) == Backup(num_artifacts=2, num_new=2, num_bytes=19)
    assert copied.get_bytes(ref) == b"an image"


def test_the_record_is_of_one_moment_while_others_write(used: Home, tmp_path: Path) -> None:
    started, ended = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(used.path / "coordinator.db", timeout=30)) as record:
            number = 0
            while not ended.is_set():
                with record:
                    record.execute("INSERT INTO pairs VALUES (?, NULL)", (number,))
                    record.execute("UPDATE pairs SET second = first WHERE first = ?", (number,))
                number += 1
                if number == 50:
                    started.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert started.wait(60)
        for number in range(3):
            copy_record(used.path / "coordinator.db", tmp_path / f"{number}.db")
    finally:
        ended.set()
        thread.join()
    for number in range(3):
        with closing(sqlite3.connect(tmp_path / f"{number}.db")) as record:
            assert record.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            (num_rows, num_torn) = record.execute(
                "SELECT count(*), sum(second IS NULL) FROM pairs"
            ).fetchone()
        assert num_rows >= 50
        assert num_torn == 0


def test_says_what_cannot_be_copied_or_where_not(used: Home, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no record to copy"):
        back_up(Home(tmp_path / "absent"), tmp_path / "copy")
    with pytest.raises(BadSetting, match="is the home itself"):
        back_up(used, used.path / "run" / "..")
    started = Home(tmp_path / "started")
    started.make()
    with pytest.raises(FailedPrecondition, match="A stack was started in"):
        back_up(used, started.path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSetting, match="cannot be written: Not a directory"):
        back_up(used, tmp_path / "file" / "copy")
    used.write_state({"artifacts": "s3://bucket"}, [])
    with pytest.raises(FailedPrecondition, match="keeps its artifacts elsewhere"):
        back_up(used, tmp_path / "copy")
    used.write_state({}, [])
    (used.path / "coordinator.db").write_bytes(b"no database" * 100)
    with pytest.raises(Unavailable, match="cannot be copied"):
        back_up(used, tmp_path / "copy")


def test_the_command_says_what_there_is_and_how_to_go_on(
    used: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "copy"
    assert main(["backup", str(target), "--home", str(used.path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "the record and 1 artifacts (8 B), 1 of them new" in out
    assert f"dnd up --home {target}" in out
    assert main(["backup", str(target), "--home", str(tmp_path / "absent")]) != 0
    assert "no record to copy" in capsys.readouterr().err
