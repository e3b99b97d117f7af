"""dnd up, status, down on stacks of tiny processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import yaml
from unit.stack.conftest import CONFIG, DIES, READY, Plan

from dnd.cli import connect, demo, main, stack_commands
from dnd.client import Client
from dnd.errors import FailedPrecondition
from dnd.stack import Home, inspect, load_config, start
from dnd.stack.home import Running
from dnd.stack.processes import find

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dnd(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Command]:
    """Runs `dnd ARGUMENTS` in the test's home, without a probe set to draw."""
    monkeypatch.setenv("DND_HOME", str(home.path))
    monkeypatch.delenv("DND_SERVER", raising=False)
    monkeypatch.setattr(stack_commands, "load_config", lambda path: load_config(path) and CONFIG)
    monkeypatch.setattr(connect, "Client", partial(Client, retry_s=0.2))
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(one) for one in arguments])
        return status, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, before)


def kill(home: Home, name: str) -> None:
    (one,) = (one for one in home.read_state().processes if one.name == name)
    psutil.Process(one.pid).kill()
    psutil.Process(one.pid).wait(10)


def test_starts_shows_and_stops(dnd: Command, home: Home, plan: Plan) -> None:
    plan(coordinator=READY, captioner=READY)
    status, out, _ = dnd("up")
    assert status == 0
    assert "captioner ready after" in out
    assert "2 processes ready after" in out
    assert f"The stack runs in {home.path}; logs are in {home.logs}." in out
    status, out, _ = dnd("status")
    assert status == 0
    assert out.count("ready") == 2
    assert dnd("down")[:2] == (0, "Stopped 2 processes.\n")
    assert dnd("down")[:2] == (0, f"No stack is running in {home.path}.\n")


def test_fails_when_a_stack_is_running_already(dnd: Command, home: Home, plan: Plan) -> None:
    plan(coordinator=READY)
    dnd("up")
    status, _, err = dnd("up")
    assert status == 1
    assert "A stack is running in" in err
    for advice in ("`dnd status`", "`dnd up --repair`", "`dnd down`", "--home"):
        assert advice in err
    assert len(inspect(home)) == 1


def test_shows_the_log_when_a_process_dies_at_the_start(dnd: Command, plan: Plan) -> None:
    plan(coordinator=READY, captioner=DIES)
    status, out, err = dnd("up")
    assert status == 1
    assert err.startswith("dnd: captioner (process ")
    assert err.endswith("captioner: DND_PORT = 7: the port is in use\n")
    assert "The stack runs" not in out


def test_names_the_dead_and_starts_them_again(dnd: Command, home: Home, plan: Plan) -> None:
    plan(coordinator=READY, captioner=READY)
    dnd("up")
    home.log("captioner").write_text("out of memory\n")
    kill(home, "captioner")
    status, out, err = dnd("status")
    assert status == 1
    assert "dead" in out
    assert "captioner (process " in err
    assert "out of memory\nStart again what has died with `dnd up --repair`." in err
    assert dnd("up", "--repair")[0] == 0
    assert dnd("status")[0] == 0
    assert "Everything was running." in dnd("up", "--repair")[1]


def test_names_the_coordinator_when_it_has_died(dnd: Command, home: Home, plan: Plan) -> None:
    plan(coordinator=READY, captioner=READY)
    dnd("up")
    kill(home, "coordinator")
    status, _, err = dnd("jobs")
    assert status == 1
    assert "coordinator (process " in err
    assert "Start it again with `dnd up --repair`." in err
    assert "No stack is running" not in err


def test_says_so_when_the_machine_was_restarted(dnd: Command, home: Home, plan: Plan) -> None:
    home.make()
    home.write_state({}, [Running("coordinator", 2**22 - 1, 1.0), Running("x", 2**22 - 2, 1.0)])
    status, out, err = dnd("status")
    assert (status, out) == (1, "")
    assert "all 2 processes of the last one have ended without `dnd down`" in err
    assert "Start it with `dnd up`" in err
    assert "No stack is running in" in dnd("jobs")[2]
    assert "No stack was running in" in dnd("down")[1]
    home.write_state({}, [Running("coordinator", 2**22 - 1, 1.0)])
    plan(coordinator=READY)
    assert dnd("up")[0] == 0


def test_stops_what_was_started_when_interrupted(
    dnd: Command, home: Home, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    plan(coordinator=READY)
    monkeypatch.setattr("dnd.stack.stack._await_ready", interrupted)
    status, out, _ = dnd("up")
    assert status == 130
    assert "Stopped what had been started." in out
    assert home.read_state().processes == ()


def test_says_no_stack_is_running_when_none_is(dnd: Command) -> None:
    status, _, err = dnd("status")
    assert status == 1
    assert "start one with `dnd up`" in err
    status, _, err = dnd("up", "--repair")
    assert status == 1
    assert "start one with `dnd up`" in err


def test_waits_for_no_other_command_in_the_same_home(dnd: Command, home: Home) -> None:
    with home.lock():
        status, _, err = dnd("up")
    assert status == 1
    assert "Another dnd command is starting, stopping or using the stack" in err


def test_names_the_key_when_the_configuration_is_wrong(dnd: Command, tmp_path: Path) -> None:
    (tmp_path / "stack.yaml").write_text("services: {scorer: {devise: cpu}}")
    status, _, err = dnd("up", "--config", tmp_path / "stack.yaml")
    assert status == 1
    assert "Did you mean 'device'?" in err
    assert dnd("up", "--config", tmp_path / "none.yaml")[0] == 1
    status, _, err = dnd("up", "--repair", "--config", tmp_path / "stack.yaml")
    assert status == 2
    assert "takes no --config" in err


def test_prints_a_configuration_to_start_from(dnd: Command) -> None:
    status, out, _ = dnd("up", "--print-config")
    assert status == 0
    assert set(yaml.safe_load(out)["services"]) == set(load_config().services)


def test_a_demo_ends_what_a_killed_one_has_left(home: Home, plan: Plan) -> None:
    plan(coordinator=READY)
    start(home, CONFIG)
    (left,) = home.read_state().processes
    with home.lock(), pytest.raises(FailedPrecondition, match="Another dnd command"):
        demo._remove(home.path)
    demo._remove(home.path)
    assert not home.path.exists()
    assert find(left) is None
