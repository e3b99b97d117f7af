"""The faults are drawn at random: CHAOS_SEED repeats a run's choice and order of them.

With CHAOS_RUN=FILE (`make chaos`) each fault strikes on each back end with each seed. What has
passed at this commit is written to FILE and left out when the run is started again.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos.faults import Fault
from chaos.recovery import Struck
from chaos.worlds import POSTGRES, SQLITE, WORKERS, World, start_world
from tcp_proxy import Mode

# Written back, so that the processes of a parallel run draw alike.
os.environ["CHAOS_SEED"] = os.environ.get("CHAOS_SEED") or str(
    random.SystemRandom().randrange(10**6)
)
SEED = int(os.environ["CHAOS_SEED"])
RUN = Path(os.environ["CHAOS_RUN"]).absolute() if os.environ.get("CHAOS_RUN") else None
RUNS = [(SQLITE, 1), (SQLITE, 2), (SQLITE, 3), (POSTGRES, 1)]
_RECOVERY = "recovery_s"

collect_ignore = [] if RUN else ["test_faults.py"]


@pytest.fixture
def rng() -> random.Random:
    return random.Random(SEED)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"world_of", "seed"} <= set(metafunc.fixturenames):
        metafunc.parametrize(
            ("world_of", "seed"),
            RUNS,
            indirect=["world_of"],
            ids=[f"{backend}-{seed}" for backend, seed in RUNS],
            scope="session",
        )


@pytest.fixture(scope="session")
def world_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    with start_world(request.param, tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture
def world(world_of: World) -> World:
    """The world with everything up, whatever the test before has left."""
    stack = world_of.stack
    for proxy in world_of.proxies.values():
        proxy.mode = Mode.PASS
    world_of.fakes.clear_faults()
    if stack.broker is None:
        stack.start_broker()
    if stack.coordinator is None:
        stack.start_coordinator()
    for name in WORKERS:
        if name not in stack.workers:
            stack.start_workers(name, threads=1)
    return world_of


@pytest.fixture
def record_recovery(
    request: pytest.FixtureRequest,
) -> Callable[[str, Fault, Struck, float], None]:
    """Keeps what a fault struck, and the seconds until all of that had gone on."""

    def keep(name: str, fault: Fault, struck: Struck, seconds: float) -> None:
        request.node.user_properties.extend(
            [
                ("fault", name),
                ("bound_s", fault.bound_s),
                ("num_struck", struck.num_rows),
                (_RECOVERY, round(seconds, 2)),
            ]
        )

    return keep


def _commit() -> str:
    """The commit, marked if files of it have changed."""
    return subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()


def _lines() -> list[dict[str, Any]]:
    """What has passed at this commit."""
    if RUN is None or not RUN.exists():
        return []
    lines = [json.loads(line) for line in RUN.read_text().splitlines()]
    return [line for line in lines if line["commit"] == _commit()]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    passed = {line["test"] for line in _lines()}
    if left_out := [item for item in items if item.nodeid in passed]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.nodeid not in passed]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if RUN is None or report.when != "call" or not report.passed:
        return
    line = {"commit": _commit(), "test": report.nodeid, "seconds": round(report.duration, 1)}
    line |= dict(report.user_properties)
    with RUN.open("a") as file:
        file.write(json.dumps(line) + "\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"chaos: CHAOS_SEED={SEED} repeats the choice of faults")
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in _lines():
        if _RECOVERY in line:
            found[line["fault"]].append(line)
    for name, lines in found.items():
        seconds = [line[_RECOVERY] for line in lines]
        num_struck = sum(line["num_struck"] for line in lines)
        terminalreporter.write_line(
            f"{name:45} {len(lines)} runs, {num_struck:4} rows struck, gone on after "
            f"{statistics.median(seconds):.1f} s, {max(seconds):.1f} s at most; "
            f"within {lines[0]['bound_s']:.1f} s where nothing else runs"
        )
