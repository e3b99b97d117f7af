"""Simulated jobs: the busiest stage sets the time, tasks and the stages before it add to it."""

from __future__ import annotations

import pytest

from dnd.errors import FailedPrecondition, InvalidInput
from dnd.jobs import StageLoad
from dnd.simulation import fewest_replicas, simulate, size_stages

LOADS = (
    StageLoad("index", 4, 5.0, 2, 1),
    StageLoad("caption", 1000, 0.1, 1, 1),
    StageLoad("synthesize", 5000, 4.0, 8, 2),  # 8 threads on 2 replicas: one draws a set in 1 s
    StageLoad("score", 1000, 0.01, 1, 1),
)


def test_time_is_that_of_the_busiest_stage_and_of_what_comes_before() -> None:
    found = simulate(LOADS, 1000)
    assert found.limit == "synthesize"
    assert 10 + 2500 < found.duration_s < 1.05 * (10 + 2500)
    assert found.busy["synthesize"] > 0.95
    assert found.busy["caption"] == pytest.approx(100 / found.duration_s)


def test_more_replicas_help_until_another_stage_is_the_limit() -> None:
    times = {num: simulate(LOADS, 1000, {"synthesize": num}).duration_s for num in (2, 4, 8, 500)}
    assert times[2] / times[4] == pytest.approx(2, rel=0.05)
    assert times[2] / times[8] == pytest.approx(4, rel=0.1)
    most = simulate(LOADS, 1000, {"synthesize": 500})
    assert most.limit == "caption"
    assert most.duration_s > 100


def test_twice_the_units_take_twice_as_long() -> None:
    twice = tuple(
        StageLoad(one.stage, 2 * one.num_items, one.item_s, one.num_threads, one.num_replicas)
        for one in LOADS
    )
    assert simulate(twice, 2000).duration_s == pytest.approx(
        2 * simulate(LOADS, 1000).duration_s, rel=0.02
    )


def test_fewest_replicas_are_just_enough() -> None:
    num = fewest_replicas(LOADS, 1000, "synthesize", 600.0)
    assert num is not None
    assert simulate(LOADS, 1000, {"synthesize": num}).duration_s <= 600
    assert simulate(LOADS, 1000, {"synthesize": num - 1}).duration_s > 600
    assert fewest_replicas(LOADS, 1000, "synthesize", 90.0) is None


def test_nothing_is_simulated_from_what_has_not_been_measured() -> None:
    with pytest.raises(FailedPrecondition, match="caption has not been measured"):
        simulate((StageLoad("caption", 10),), 10)


def test_unknown_stages_and_numbers_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no stage 'draw'"):
        simulate(LOADS, 1000, {"draw": 2})
    with pytest.raises(InvalidInput, match="0 replicas"):
        simulate(LOADS, 1000, {"score": 0})


def test_job_without_units_takes_the_time_of_its_index() -> None:
    assert simulate(LOADS, 0).duration_s == pytest.approx(10.0)


def test_each_stage_gets_the_replicas_that_its_work_takes() -> None:
    sizes = {one.stage: one for one in size_stages(LOADS, 600.0)}
    drawing = sizes["synthesize"]
    assert (drawing.item_s, drawing.work_s, drawing.replicas) == (1.0, 5000.0, 9)
    assert [sizes[stage].replicas for stage in ("index", "caption", "score")] == [1, 1, 1]
    # At least so many: what the stages wait for each other comes on top.
    assert fewest_replicas(LOADS, 1000, "synthesize", 600.0) >= 9
    with pytest.raises(FailedPrecondition, match="caption has not been measured"):
        size_stages((StageLoad("caption", 10),), 600.0)
