"""Who writes next on SQLite: callers of the API before the work of jobs, on any machine."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from dnd_services.coordinator.store import Store, turns


def test_urgent_writer_goes_before_those_who_have_waited_for_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_LET_PASS_S", 60.0)
    url, order = f"sqlite:///{tmp_path}/record.db", list[str]()

    def write(name: str, is_urgent: bool) -> None:
        store = Store(url)  # as of a process of its own
        with store.writing(is_urgent=is_urgent):
            order.append(name)
        store.close()

    names = [*(f"work {number}" for number in range(4)), "caller"]
    waiting = [threading.Thread(target=write, args=(name, name == "caller")) for name in names]
    first = Store(url)
    with first.writing():
        for thread in waiting:
            thread.start()
            time.sleep(0.2)
    for thread in waiting:
        thread.join()
    first.close()
    assert order[0] == "caller"
    assert sorted(order) == sorted(names)


def test_work_goes_on_when_somebody_urgent_waits_for_long(tmp_path: Path) -> None:
    first = turns.Turns(str(tmp_path / "turns"))
    with first.urgent():
        first.let_urgent_pass()
    first.close()


def test_record_is_written_when_nobody_can_say_whose_turn_it_is(tmp_path: Path) -> None:
    (tmp_path / "record.db.turns").mkdir()
    store = Store(f"sqlite:///{tmp_path}/record.db")
    for is_urgent in (False, True):
        with store.writing(is_urgent=is_urgent) as session:
            session.connection().exec_driver_sql("CREATE TABLE IF NOT EXISTS t (x)")
    store.close()
