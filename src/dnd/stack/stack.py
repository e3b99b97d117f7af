"""Starting, mending and stopping the processes of a home. Callers hold the home's lock."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from dnd.errors import FailedPrecondition, Unavailable
from dnd.stack import valkey
from dnd.stack.config import StackConfig, parse_config
from dnd.stack.health import Health, Member, describe_death, look_at
from dnd.stack.home import Home, Running
from dnd.stack.plan import COORDINATOR, base_environment, has_judge, plan_programs
from dnd.stack.probes import draw_emoji
from dnd.stack.processes import Program, end_all, find, spawn

STOP_GRACE_S = 30.0
_POLL_S = 0.2

Watcher = Callable[[Sequence[Member]], None]


def start(
    home: Home,
    config: StackConfig,
    on_change: Watcher = lambda members: None,
    *,
    only: Sequence[str] = (),
) -> None:
    """Starts everything and waits until it is ready.

    Args:
        on_change: Called several times a second with how the processes are.
        only: Names of the programs to start; all of them if empty.

    Raises:
        FailedPrecondition: A stack runs in this home already.
        Unavailable: A process died or did not get ready; the others have been stopped again.
    """
    if alive := [one for one in home.read_state().processes if find(one)]:
        raise FailedPrecondition(
            f"A stack is running in {home.path} already ({len(alive)} processes): see "
            "`dnd status`, mend it with `dnd up --repair`, stop it with `dnd down`, or name "
            "another home with --home."
        )
    home.make()
    port = 0 if config.redis else valkey.free_port()
    programs = _programs(config, home, port)
    chosen = [program for program in programs if not only or program.name in only]
    started: list[Running] = []
    try:
        for program in chosen:
            started.append(spawn(program, home.log(program.name), home.path))
            home.write_state(dataclasses.asdict(config), started)
        _await_ready(home, config, started, on_change)
    except BaseException:
        end_all(started, 5.0)
        (home.run / "stack.json").unlink(missing_ok=True)
        raise


def repair(home: Home, on_change: Watcher = lambda members: None) -> list[str]:
    """Starts again what has died, as it was started; the names.

    Raises:
        FailedPrecondition: Nothing runs in this home.
        Unavailable: A process died again or did not get ready; the others are as they were.
    """
    state = home.read_state()
    processes = list(state.processes)
    if not any(find(one) for one in processes):
        raise FailedPrecondition(f"No stack is running in {home.path}: start one with `dnd up`.")
    config = parse_config(state.config, str(home.run / "stack.json"))
    port = next((one.port for one in processes if one.port), 0)
    programs = {program.name: program for program in _programs(config, home, port)}
    restarted: list[Running] = []
    for place, one in enumerate(processes):
        if not find(one):
            processes[place] = spawn(programs[one.name], home.log(one.name), home.path)
            restarted.append(processes[place])
            home.write_state(state.config, processes)
    _await_ready(home, config, restarted, on_change)
    return [one.name for one in restarted]


def stop(home: Home, grace_s: float = STOP_GRACE_S) -> list[str]:
    """Ends the processes of the home, the broker last; names of those that had to be killed."""
    processes = home.read_state().processes
    broker = [one for one in processes if one.name == valkey.NAME]
    killed = end_all([one for one in processes if one not in broker], grace_s)
    killed += end_all(broker, grace_s)
    (home.run / "stack.json").unlink(missing_ok=True)
    for one in processes:
        home.endpoints(one.name).unlink(missing_ok=True)
    return killed


def running_server(home: Home) -> str | None:
    """Target of the coordinator that runs in the home, for `Client`; None if none does."""
    alive = any(find(one) for one in home.read_state().processes if one.name == COORDINATOR)
    return f"file:{home.endpoints(COORDINATOR)}" if alive else None


def web_address(home: Home) -> str:
    """URL of REST and the explorer; empty if no coordinator runs in the home."""
    running = running_server(home) is not None
    return str(home.read_endpoints(COORDINATOR).get("web", "")) if running else ""


def _programs(config: StackConfig, home: Home, port: int) -> list[Program]:
    """All programs; a broker on `port` among them unless the configuration names one."""
    if config.redis:
        return plan_programs(config, home, config.redis)
    broker = valkey.valkey_program(home.path / "valkey", port, base_environment())
    return [broker, *plan_programs(config, home, valkey.valkey_url(port))]


def _await_ready(
    home: Home, config: StackConfig, started: Sequence[Running], on_change: Watcher
) -> None:
    """Waits for processes; meanwhile the default probe set is drawn, if it is not there yet."""
    until = time.monotonic() + config.start_timeout_s
    ready: set[str] = set()
    takes_jobs = any(one.name == COORDINATOR for one in started)
    has_own_probes = takes_jobs and not config.probes
    emoji = draw_emoji(home, judged=has_judge(config)) if has_own_probes else []
    try:
        while True:
            members = [
                Member(one, Health.READY, str(home.read_endpoints(one.name).get("address", "")))
                if one.name in ready and find(one)
                else look_at(home, one)
                for one in started
            ]
            ready |= {member.name for member in members if member.health is Health.READY}
            on_change(members)
            if dead := [member.running for member in members if member.health is Health.DEAD]:
                raise Unavailable(describe_death(home, dead))
            if len(ready) == len(started) and all(one.is_done() for one in emoji):
                return
            if time.monotonic() > until:
                raise Unavailable(_describe_delay(home, config, started, ready))
            time.sleep(_POLL_S)
    finally:
        for one in emoji:
            one.close()


def _describe_delay(
    home: Home, config: StackConfig, started: Sequence[Running], ready: set[str]
) -> str:
    limit = f"within {config.start_timeout_s:.0f} s (start_timeout_s)"
    for one in started:
        if one.name not in ready:
            return (
                f"{one.name} (process {one.pid}) was not ready {limit}. The end of "
                f"{home.log(one.name)}:\n{home.log_tail(one.name)}"
            )
    return f"The emoji of the default probe sets were not drawn {limit}."
