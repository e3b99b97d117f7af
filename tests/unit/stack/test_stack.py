"""Starting, mending and stopping, with real processes."""

from __future__ import annotations

import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from unit.stack.conftest import CONFIG, DIES, NEVER_READY, PARENT, READY, STUBBORN, Plan

from dnd.errors import BadSetting, FailedPrecondition, ModelMissing, Unavailable
from dnd.stack import (
    Health,
    Home,
    Member,
    dead_members,
    inspect,
    load_config,
    repair,
    running_server,
    stack,
    start,
    stop,
)
from dnd.stack.home import Running
from dnd.stack.processes import Program


def pids(home: Home) -> dict[str, int]:
    return {one.name: one.pid for one in home.read_state().processes}


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended, be it that nobody has asked for its status yet."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def end(pid: int) -> None:
    """Kills a process of the stack, and waits until it is gone."""
    process = psutil.Process(pid)
    process.kill()
    process.wait(10)


def test_starts_everything_and_leaves_nothing_when_stopped(home: Home, plan: Plan) -> None:
    plan(coordinator=READY, captioner=PARENT)
    seen: list[list[Health]] = []

    def watch(members: list[Member]) -> None:
        seen.append([member.health for member in members])

    start(home, CONFIG, watch)  # type: ignore[arg-type]
    assert seen[-1] == [Health.READY, Health.READY]
    assert Health.STARTING in seen[0]
    assert running_server(home) == f"file:{home.endpoints('coordinator')}"
    members = inspect(home)
    assert [member.health for member in members] == [Health.READY] * 2
    assert all(member.memory_bytes > 0 for member in members)
    family = [psutil.Process(pid) for pid in pids(home).values()]
    family += [child for process in family for child in process.children()]
    assert len(family) == 3

    assert stop(home) == []
    assert all(is_gone(process) for process in family)
    assert inspect(home) == []
    assert running_server(home) is None
    assert list(home.run.iterdir()) == []


def test_names_who_died_with_the_end_of_its_log(home: Home, plan: Plan) -> None:
    plan(coordinator=READY, captioner=DIES)
    others = psutil.Process().children()
    with pytest.raises(Unavailable) as caught:
        start(home, CONFIG)
    message = caught.value.message
    assert message.startswith("captioner (process ")
    assert "ended with status 2" in message
    assert str(home.log("captioner")) in message
    assert message.endswith("captioner: DND_PORT = 7: the port is in use")
    assert home.read_state().processes == ()
    assert all(is_gone(one) for one in psutil.Process().children() if one not in others)


def test_reports_a_port_in_use_when_a_service_is_given_it(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = load_config()
        services = {**config.services, "scorer": {**config.services["scorer"], "port": port}}
        config = replace(config, services=services, probes="none", redis="redis://127.0.0.1:1/0")
        with pytest.raises(Unavailable, match=f"DND_PORT = {port}: the port is in use") as caught:
            start(home, config, only=("scorer",))
    assert caught.value.message.startswith("scorer (process ")


def test_shows_the_log_of_a_process_that_does_not_get_ready(home: Home, plan: Plan) -> None:
    plan(coordinator=READY, captioner=NEVER_READY)
    with pytest.raises(Unavailable, match=r"captioner \(process \d+\) was not ready within 1 s"):
        start(home, replace(CONFIG, start_timeout_s=1.0))
    assert home.read_state().processes == ()


def test_refuses_a_second_stack_in_the_same_home(home: Home, plan: Plan) -> None:
    plan(coordinator=READY)
    start(home, CONFIG)
    before = pids(home)
    with pytest.raises(FailedPrecondition, match=r"already \(1 processes\).*`dnd down`.*--home"):
        start(home, CONFIG)
    assert pids(home) == before
    assert dead_members(home) == []


def test_repairs_only_what_has_died(home: Home, plan: Plan) -> None:
    plan(coordinator=READY, captioner=READY, scorer=READY)
    start(home, CONFIG)
    before = pids(home)
    home.log("captioner").write_text("last words\n")
    end(before["captioner"])
    assert [one.name for one in dead_members(home)] == ["captioner"]
    assert repair(home) == ["captioner"]
    after = pids(home)
    assert {name for name in after if after[name] != before[name]} == {"captioner"}
    assert dead_members(home) == []
    assert home.log("captioner").with_suffix(".log.1").read_text() == "last words\n"
    assert repair(home) == []


def test_keeps_the_others_when_a_repair_fails(home: Home, plan: Plan) -> None:
    plan(coordinator=READY, captioner=READY)
    start(home, CONFIG)
    end(pids(home)["captioner"])
    plan(coordinator=READY, captioner=DIES)
    with pytest.raises(Unavailable, match="the port is in use"):
        repair(home)
    assert running_server(home) is not None


def test_says_how_to_start_when_there_is_nothing_to_repair(home: Home, plan: Plan) -> None:
    plan(coordinator=READY)
    with pytest.raises(FailedPrecondition, match="start one with `dnd up`"):
        repair(home)


def test_kills_what_does_not_end_in_time_and_names_it(home: Home, plan: Plan) -> None:
    plan(coordinator=READY, captioner=STUBBORN)
    start(home, CONFIG)
    stubborn = psutil.Process(pids(home)["captioner"])
    assert stop(home, 0.3) == ["captioner"]
    assert is_gone(stubborn)


def test_starts_again_when_the_machine_was_restarted(home: Home, plan: Plan) -> None:
    home.make()
    me = psutil.Process()
    # The ids of the old stack belong to others now: this very process among them.
    others = [
        Running("coordinator", me.pid, me.create_time() - 3600),
        Running("captioner", 2**22 - 1, 1.0),
    ]
    home.write_state({}, others)
    assert running_server(home) is None
    assert [member.health for member in inspect(home)] == [Health.DEAD] * 2
    plan(coordinator=READY)
    start(home, CONFIG)
    assert set(pids(home)) == {"coordinator"}
    assert running_server(home) is not None


def test_never_ends_a_process_that_is_not_its_own(home: Home) -> None:
    home.make()
    me = psutil.Process()
    home.write_state({}, [Running("coordinator", me.pid, me.create_time() - 3600)])
    assert stop(home, 1.0) == []  # we are still here


def test_ignores_endpoints_that_an_older_process_wrote(home: Home, plan: Plan) -> None:
    plan(captioner=NEVER_READY)
    home.make()
    home.endpoints("captioner").write_text('{"pid": 1, "address": ""}')
    with pytest.raises(Unavailable, match="was not ready"):
        start(home, replace(CONFIG, start_timeout_s=0.5))


def test_starts_a_part_when_only_that_is_asked_for(home: Home, plan: Plan) -> None:
    plan(coordinator=READY, captioner=DIES)
    start(home, CONFIG, only=("coordinator",))
    assert set(pids(home)) == {"coordinator"}


def test_stops_what_was_started_when_a_program_is_missing(
    home: Home, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(coordinator=READY)
    programs = stack._programs(CONFIG, home, 0)
    programs.append(Program("valkey", ["/nowhere/valkey-server"], {}))
    with pytest.raises(ModelMissing, match="valkey cannot be started: /nowhere/valkey-server: No"):
        start(home, CONFIG)
    assert home.read_state().processes == ()


def test_lets_one_command_at_a_time_into_a_home(home: Home) -> None:
    with (
        home.lock(),
        pytest.raises(FailedPrecondition, match="Another dnd command is"),
        home.lock(),
    ):
        pass
    with home.lock():
        pass


def test_says_what_to_do_when_the_state_file_is_damaged(home: Home) -> None:
    home.make()
    (home.run / "stack.json").write_text('{"config": {}')
    with pytest.raises(BadSetting, match=r"stack.json is damaged .*remove the file"):
        inspect(home)
    (home.run / "stack.json").unlink()


def test_names_another_home_when_this_one_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSetting, match="Name another one with --home or DND_HOME"):
        Home(tmp_path / "file" / "home").make()


def test_shows_the_last_lines_of_a_long_log(home: Home) -> None:
    home.make()
    home.log("scorer").write_text("".join(f"line {n}\n" for n in range(50_000)))
    assert home.log_tail("scorer", 2) == "line 49998\nline 49999"
    assert home.log_tail("captioner") == "(it wrote no log)"


def test_a_process_outlives_the_command_that_started_it(home: Home) -> None:
    source = str(Path(stack.__file__).parents[2])
    code = (
        f"import sys; sys.path.insert(0, {source!r})\n"
        "from dnd.stack.processes import Program, spawn\n"
        "from pathlib import Path\n"
        f"log = Path({str(home.path)!r}); log.mkdir()\n"
        "one = spawn(Program('x', ['sleep', '60'], {'PATH': '/usr/bin:/bin'}), log / 'l', log)\n"
        "print(one.pid)\n"
    )
    import subprocess

    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    sleeper = psutil.Process(int(out.stdout))
    try:
        assert sleeper.is_running()
        assert sleeper.create_time() <= time.time()
    finally:
        sleeper.kill()
