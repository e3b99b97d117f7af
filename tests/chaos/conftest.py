"""The faults are drawn at random: CHAOS_SEED repeats a run's choice and order of them."""

from __future__ import annotations

import os
import random

import pytest

SEED = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))


@pytest.fixture
def rng() -> random.Random:
    return random.Random(SEED)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"chaos: CHAOS_SEED={SEED} repeats the choice of faults")
