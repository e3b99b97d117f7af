"""The command as a person calls it, against a coordinator that answers samples."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest
from fake_coordinator import FakeCoordinator, serve_fake
from result_samples import make_sample

from dnd.cli import connect, main
from dnd.client import Client
from dnd.stack import Home
from dnd.stack.home import Running


@dataclass(frozen=True)
class Outcome:
    """What a command wrote, and its exit status."""

    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a working directory of the test's own; an absent server is given up on soon."""
    monkeypatch.setenv("DND_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DND_SERVER", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connect, "Client", partial(Client, retry_s=0.2))
    return tmp_path / "home"


@pytest.fixture
def dnd(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs `dnd ARGUMENTS`."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Outcome:
        status = main([str(one) for one in arguments])
        return Outcome(status, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def fake() -> FakeCoordinator:
    """A coordinator with one job of five units, of which the last has failed."""
    from dnd.jobs import UnitState

    fake = FakeCoordinator(make_sample(5, states={4: UnitState.FAILED}))
    assert fake.on_create is not None
    fake.samples["job-1"] = fake.on_create
    return fake


@pytest.fixture
def server(fake: FakeCoordinator) -> Iterator[str]:
    """The address of the coordinator."""
    with serve_fake(fake) as address:
        yield address


@pytest.fixture
def home_with_dead_captioner(own_home: Path, server: str) -> Home:
    """A home whose coordinator is this test's, and whose captioner has died."""
    home = Home(own_home)
    home.make()
    child = subprocess.Popen([sys.executable, "-c", ""])
    born = psutil.Process(child.pid).create_time()
    child.wait()
    me = psutil.Process()
    home.write_state(
        {},
        [
            Running("coordinator", me.pid, me.create_time()),
            Running("captioner", child.pid, born),
        ],
    )
    home.endpoints("coordinator").write_text(json.dumps({"address": server, "pid": me.pid}))
    home.log("captioner").write_text("loading\ncaptioner: out of memory\n")
    return home
