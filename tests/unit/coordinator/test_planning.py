"""What a job costs at most."""

from __future__ import annotations

from coordinator_desk import CALIBRATED, SMALL, Desk

from dnd.jobs import Estimate, JobSpec, LayerUnits
from dnd.types import RequestContext
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
