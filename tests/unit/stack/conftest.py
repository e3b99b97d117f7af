"""Stacks of tiny processes in place of the real ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dnd.stack import Home, StackConfig, stack, stop
from dnd.stack.processes import Program

# What a process of the stack does: says that it is there, works, ends on SIGTERM.
READY = """
import json, os, pathlib, time
pathlib.Path({endpoints!r}).write_text(json.dumps({{"pid": os.getpid(), "address": ""}}))
time.sleep(120)
"""
DIES = """
import sys
print("line of no interest")
print("captioner: DND_PORT = 7: the port is in use")
sys.exit(2)
"""
NEVER_READY = "import time; print('loading', flush=True); time.sleep(120)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + READY
PARENT = "import subprocess; subprocess.Popen(['sleep', '120'])" + READY

CONFIG = StackConfig(probes="none", start_timeout_s=60.0)
"""No probe set is drawn for it."""

Plan = Callable[..., None]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home that is stopped at the end."""
    home = Home(tmp_path / "home")
    yield home
    stop(home, 1.0)


@pytest.fixture
def plan(home: Home, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Says what the stack consists of: name=script."""

    def set_plan(**scripts: str) -> None:
        programs = []
        for name, script in scripts.items():
            endpoints = home.endpoints(name)
            code = script.format(endpoints=str(endpoints)) if "endpoints" in script else script
            command = [sys.executable, "-S", "-E", "-c", code]
            programs.append(Program(name, command, {}, endpoints))
        monkeypatch.setattr(stack, "_programs", lambda config, home, port: programs)

    return set_plan
