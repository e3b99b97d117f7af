"""How far a job is, as lines and as bars."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from result_samples import make_sample
from rich.console import Console

from dnd.cli import progress
from dnd.cli.progress import Pace, headline
from dnd.jobs import Job, JobState, StageCount, UnitState

JOB = replace(
    make_sample(4).job,
    state=JobState.RUNNING,
    units={UnitState.LABELED: 1, UnitState.FAILED: 1, UnitState.PENDING: 2},
)


def at(num_done: int, **more: int) -> Job:
    """The job when one stage has done so much."""
    counts = {"num_open": 0, "num_failed": 0, "num_total": 100, **more}
    return replace(JOB, stages=(StageCount("caption", num_done, **counts),))


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_measures_the_rate_over_the_last_minute() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.add(at(0))
    assert pace.rate(at(0).stages[0]) == 0.0
    for clock.now, num_done in ((10.0, 10), (100.0, 10), (110.0, 30)):
        pace.add(at(num_done))
    assert pace.rate(at(30).stages[0]) == pytest.approx(2.0)  # what was before does not count
    assert pace.remaining_s(at(30).stages[0]) == pytest.approx(35.0)


def test_knows_no_end_when_a_stage_has_no_total_or_no_rate() -> None:
    pace = Pace(Clock())
    pace.add(at(0))
    assert pace.remaining_s(at(0).stages[0]) is None
    assert pace.remaining_s(at(0, num_total=0).stages[0]) is None
    assert pace.remaining_s(at(90, num_failed=10).stages[0]) == 0.0
    assert pace.job_remaining_s(replace(JOB, stages=())) is None


def test_the_slowest_stage_decides_when_a_job_is_done() -> None:
    clock = Clock()
    pace = Pace(clock)
    for clock.now, fast, slow in ((0.0, 0, 0), (10.0, 50, 10)):
        job = replace(
            JOB,
            stages=(
                StageCount("caption", fast, num_total=100),
                StageCount("score", slow, num_total=100),
            ),
        )
        pace.add(job)
    assert pace.job_remaining_s(job) == pytest.approx(90.0)


def test_says_why_a_job_is_held_back() -> None:
    held = replace(JOB, state=JobState.PAUSED, pause_reason="the disk is full\x1b[2J")
    assert headline(held) == (
        "job job-1: 2 of 4 units have ended, 1 failed (paused). Held back: the disk is full�[2J"
    )


def test_writes_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    view = progress._Lines()
    for num_done in range(50):
        view.show(at(num_done))
    assert capsys.readouterr().out.count("\n") == 1
    view.show(replace(at(100), state=JobState.COMPLETED))
    assert "caption 100/100" in capsys.readouterr().out


def test_draws_a_bar_for_each_stage() -> None:
    view = progress._Bars()
    view.show(at(40))
    view.show(at(60))
    drawn = io.StringIO()
    Console(file=drawn, width=100, color_system=None).print(view.live.get_renderable())
    assert "2 of 4 units have ended, 1 failed" in drawn.getvalue()
    assert "caption" in drawn.getvalue()
    assert "60/100" in drawn.getvalue()
