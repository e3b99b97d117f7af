"""What a job costs at most."""

from __future__ import annotations

from dataclasses import replace

from coordinator_desk import CALIBRATED, SMALL, Desk

from dnd.errors import Unavailable
from dnd.jobs import Estimate, JobSpec, LayerUnits, Method
from dnd.types import RequestContext
from dnd_services.coordinator.budgets import Price
from dnd_services.coordinator.planning import estimate


def cost(desk: Desk, overrides: dict[str, str]) -> Estimate:
    units = LayerUnits("features.conv", (1, 2, 3))
    spec = JobSpec("tiny", (units,), "shapes", "starter", SMALL | overrides)
    return estimate(desk.planner.plan(spec, RequestContext()), {}, {})


def test_units_of_several_kinds_may_cost_several_times_as_much(desk: Desk) -> None:
    one = cost(desk, {})
    several = cost(desk, {"facets.enabled": "true", "facets.max_clusters": "4"})
    assert (one.num_captions, one.num_llm_calls, one.num_drawings) == (15, 9, 63)
    assert (several.num_captions, several.num_llm_calls, several.num_drawings) == (60, 36, 252)


def test_contrast_costs_captions(desk: Desk) -> None:
    assert cost(desk, {"propose.contrast": "4"}).num_captions == 15 + 3 * 4


def test_labels_of_the_exemplars_cost_one_more_call_of_the_captioner(desk: Desk) -> None:
    assert cost(desk, {"caption.num_labels": "4"}).num_captions == 15 + 3


def test_percentiles_cost_the_drawings_of_the_bank_and_of_each_label(desk: Desk) -> None:
    assert cost(desk, CALIBRATED).num_drawings == 63 + 3 * 2 + 12 * 2


def test_tokens_storage_and_dollars_are_estimated_before_anything_runs(desk: Desk) -> None:
    units = LayerUnits("features.conv", (1, 2, 3))
    settings = SMALL | {"propose.one_call": "false", "propose.num_summaries": "5"}
    spec = JobSpec("tiny", (units,), "shapes", "starter", settings)
    planned = desk.planner.plan(spec, RequestContext())
    found = estimate(planned, {}, {})
    assert found.num_input_tokens == 3 * 5 * (300 + 5 * 15)
    assert found.num_output_tokens == 3 * 5 * 12
    assert (found.dollars, found.has_price, found.gpu_hours) == (0.0, False, 0.0)
    drawn, shown, index = found.num_drawings * 64 * 64 * 2, 3 * 5 * 100_000, 120 * 3 * 2
    assert found.num_stored_bytes == drawn + shown + index
    priced = estimate(planned, {}, {}, Price(10.0, 100.0))
    assert priced.has_price
    assert priced.dollars == (found.num_input_tokens * 10 + found.num_output_tokens * 100) / 1e6


def test_hours_of_devices_are_those_of_the_measured_stages(desk: Desk) -> None:
    spec = JobSpec("tiny", (LayerUnits("features.conv", (1, 2)),), "shapes", "starter", SMALL)
    planned = desk.planner.plan(spec, RequestContext())
    stages = ("index", "exemplars", "caption", "summarize", "synthesize", "score")
    times = {(stage, "starter"): 1800.0 for stage in stages}
    found = estimate(planned, times, {})
    num_items = 1 + 2 + 2 + found.num_drawings / 3 + 2  # shards, units thrice, sets; no summaries
    assert found.gpu_hours == num_items / 2


def test_language_model_is_named_unless_it_is_away_or_not_asked(desk: Desk) -> None:
    spec = JobSpec("tiny", (LayerUnits("features.conv", (1,)),), "shapes", "starter", SMALL)
    planned = desk.planner.plan(spec, RequestContext())
    assert desk.planner.find_llm(planned, RequestContext()) == "fake/summarizer"
    without = replace(planned, method=Method.CLIP_DISSECT)
    assert desk.planner.find_llm(without, RequestContext()) == ""
    desk.fakes.summarizer.faults.call = lambda _: Unavailable("away")
    assert desk.planner.find_llm(planned, RequestContext()) == ""
