"""The faults are drawn at random: CHAOS_SEED repeats a run's choice and order of them."""

from __future__ import annotations

import os
import random

import pytest

# Written back, so that the processes of a parallel run draw alike.
os.environ["CHAOS_SEED"] = os.environ.get("CHAOS_SEED") or str(
    random.SystemRandom().randrange(10**6)
)
SEED = int(os.environ["CHAOS_SEED"])


@pytest.fixture
def rng() -> random.Random:
    return random.Random(SEED)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"chaos: CHAOS_SEED={SEED} repeats the choice of faults")
