"""Jobs that choose from a concept set, and cascades that describe where the choice is uncertain."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from coordinator_desk import SMALL, Desk

from dnd.concept_sets import common_english
from dnd.dissection import Dissection, save_concepts
from dnd.errors import BadSetting, InvalidInput, NotFound, Unavailable, UnknownName
from dnd.jobs import JobSpec, JobState, LayerUnits, Method, UnitState
from dnd.profiles import DissectSettings
from dnd.types import RequestContext
from dnd_services.coordinator.dissections import least_certain
from dnd_services.coordinator.models import UnitRow, WorkRow
from dnd_services.coordinator.planning import estimate

CLIP = JobSpec(
    "tiny",
    (LayerUnits("features.conv", tuple(range(4, 32))), LayerUnits("classifier", (0, 9))),
    "shapes",
    "starter",
    overrides=SMALL,
    method=Method.CLIP_DISSECT,
    concept_set="classes",
)
CASCADE = dataclasses.replace(
    CLIP, method=Method.CASCADE, overrides={**SMALL, "dissect.budget": "6"}
)


def test_units_are_labelled_from_the_set_and_nothing_else_is_asked(desk: Desk) -> None:
    job_id = desk.create(CLIP)
    desk.run_to_end(job_id)
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED
    assert desk.progress(job_id).units == {
        UnitState.LABELED: 24,
        UnitState.SPARSE: 2,
        UnitState.DEAD: 2,
        UnitState.TIED: 2,
    }
    stages = {one.stage: one for one in desk.progress(job_id).stages}
    assert stages["dissect"].num_done == stages["dissect"].num_total == 2
    assert all(stages[name].num_total == 0 for name in ("exemplars", "caption", "score"))
    assert {row.stage for row in desk.rows(WorkRow)} == {"index", "dissect"}
    for service, method in (("activations", "SelectExemplars"), ("captioner", "CaptionImages")):
        assert getattr(desk.fakes, service).faults.num_calls[method] == 0
    assert set(desk.job(job_id).frozen["digests"]) == {"target", "scorer", "probe"}
    desk.check_counters(job_id)


def test_record_has_the_concepts_with_values_and_the_top_images(desk: Desk) -> None:
    job_id = desk.create(CLIP)
    desk.run_to_end(job_id)
    by_unit = {(r["layer"], r["unit"]): r for r in desk.records(job_id)}
    record = by_unit["features.conv", 4]
    assert record["method"] == "clip-dissect"
    assert len(record["concepts"]) == 5
    values = [one["value"] for one in record["concepts"]]
    assert values == sorted(values, reverse=True)
    assert record["labels"] == [
        {"text": one["text"], "score": one["value"], "candidate": None}
        for one in record["concepts"][:3]
    ]
    assert record["concepts"][0]["text"].startswith("class ")
    assert isinstance(record["certainty"], float)
    assert len(record["exemplars"]) == 10
    assert all(one["source"] in desk.fakes.artifacts for one in record["exemplars"])
    dead = by_unit["features.conv", 13]
    assert (dead["method"], dead["labels"], dead["concepts"]) == ("", [], [])
    assert desk.units(job_id)[0].row.labels == [  # type: ignore[union-attr]
        one["text"] for one in record["labels"]
    ]


def test_rows_of_a_whole_layer_are_written_in_chunks_of_one_round(desk: Desk) -> None:
    desk.tune(chunk_units=7, open_units=7)
    spec = dataclasses.replace(CLIP, model="broad", layers=(LayerUnits("block"),), concept_set="")
    job_id = desk.create(spec)
    desk.run_to_end(job_id)
    assert len(desk.rows(UnitRow)) == 208
    assert desk.progress(job_id).units[UnitState.LABELED] == 169


def test_cascade_describes_the_least_certain_units_within_its_budget(desk: Desk) -> None:
    job_id = desk.create(CASCADE)
    desk.run_to_end(job_id)
    records = desk.records(job_id)
    settings = DissectSettings()
    certain = {
        (r["layer"], r["unit"]): r["certainty"] for r in records if r["certainty"] is not None
    }
    below = sorted((c, key) for key, c in certain.items() if c < settings.min_certainty)
    assert len(below) > 6
    views = desk.units(job_id)
    described = {(v.layer, v.unit) for v in views if v.row and "exemplars" in v.row.outputs}
    assert described == {key for _, key in below[:6]}
    for record in records:
        if record["method"] == "dnd":
            assert record["candidates"]
            assert record["concepts"]
        elif record["method"]:
            assert record["candidates"] == []
            assert record["labels"][0]["text"] == record["concepts"][0]["text"]
    stages = {one.stage: one for one in desk.progress(job_id).stages}
    assert stages["exemplars"].num_done == stages["exemplars"].num_total == 6
    desk.check_counters(job_id)


def test_least_certain_units_go_first(desk: Desk) -> None:
    job_id = desk.create(CASCADE)
    first = desk.run_to_stage("exemplars")
    certain = {view.ordinal: view for view in desk.units(job_id)}
    works = sorted(desk.rows(WorkRow, stage="exemplars"), key=lambda work: work.id)
    assert len(works) == 6
    desk.runner.run(first.stage, first.tickets)
    desk.run_to_end(job_id)
    records = dict(zip(certain, desk.records(job_id), strict=True))
    turns = [records[work.ordinal]["certainty"] for work in works]
    assert turns == sorted(turns)


def test_cascade_without_a_budget_is_clip_dissect(desk: Desk) -> None:
    spec = dataclasses.replace(CASCADE, overrides={**SMALL, "dissect.budget": "0"})
    job_id = desk.create(spec)
    desk.run_to_end(job_id)
    assert {r["method"] for r in desk.records(job_id)} == {"clip-dissect", ""}
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED


def test_concepts_join_the_candidates_of_a_job_that_describes(desk: Desk) -> None:
    spec = dataclasses.replace(
        CLIP,
        method=Method.DND,
        layers=(LayerUnits("classifier", (1, 2)),),
        overrides={**SMALL, "propose.max_candidates": "16"},
    )
    job_id = desk.create(spec)
    desk.run_to_end(job_id)
    for record in desk.records(job_id):
        given = [c["text"] for c in record["candidates"] if c["origin"] == "concept_set"]
        best = [one["text"] for one in record["concepts"][:3]]
        assert given == best
        assert record["method"] == "dnd"
        assert record["labels"][0]["candidate"] is not None


def test_layer_without_a_live_unit_is_not_dissected(desk: Desk) -> None:
    spec = dataclasses.replace(CLIP, layers=(LayerUnits("features.conv", (13, 29)),))
    job_id = desk.create(spec)
    desk.run_to_end(job_id)
    assert desk.progress(job_id).units == {UnitState.DEAD: 2}


def test_job_fails_when_its_layer_cannot_be_dissected(desk: Desk) -> None:
    desk.fakes.scorer.faults.item = lambda asked: (
        InvalidInput("no such thing") if str(asked).startswith("sha256:") else None
    )
    job_id = desk.create(CLIP)
    desk.run_to_end(job_id)
    job = desk.job(job_id)
    assert JobState(job.state) is JobState.FAILED
    assert "Stage dissect failed: no such thing" in job.error
    desk.fakes.clear_faults()
    desk.retry(job_id)
    desk.run_to_end(job_id)
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED


def test_work_goes_on_when_the_scorer_was_away(desk: Desk) -> None:
    failures = iter([Unavailable("gone"), Unavailable("gone")])
    desk.fakes.scorer.faults.item = lambda asked: (
        next(failures, None) if str(asked).startswith("sha256:") else None
    )
    job_id = desk.create(CLIP)
    desk.run_to_end(job_id)
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"concept_set": "comon-english"}, UnknownName, "common-english"),
        ({"concept_set": "sha256:" + "0" * 64}, NotFound, "sha256:0000"),
        ({"profile": "paper"}, InvalidInput, "index.keep_matrix"),
        ({"overrides": {"dissect.similarity": '"wmpi"'}}, BadSetting, "soft_wpmi"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    desk: Desk, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        desk.create(dataclasses.replace(CLIP, **changes))  # type: ignore[arg-type]


def test_model_without_class_names_is_told_to_take_another_set(desk: Desk) -> None:
    spec = dataclasses.replace(CLIP, model="broad", layers=(LayerUnits("block"),))
    with pytest.raises(InvalidInput, match="classes of 'broad' have no names"):
        desk.create(spec)


def test_estimate_counts_what_a_method_does(desk: Desk) -> None:
    def of(spec: JobSpec) -> tuple[int, int, int]:
        found = estimate(desk.planner.plan(spec, RequestContext()), {}, {})
        return found.num_units, found.num_captions, found.num_drawings

    assert of(CLIP) == (30, 0, 0)
    num_units, num_captions, num_drawings = of(CASCADE)
    assert (num_units, num_captions) == (30, 6 * 5)
    assert num_drawings == 6 * 7 * 3
    assert of(dataclasses.replace(CLIP, method=Method.DND))[1] == 30 * 5


def test_bundled_set_is_taken_when_none_is_named(desk: Desk) -> None:
    planned = desk.planner.plan(dataclasses.replace(CLIP, concept_set=""), RequestContext())
    assert planned.concepts_ref == save_concepts(desk.fakes.artifacts, common_english())


@pytest.fixture
def make_dissection() -> Callable[..., Dissection]:
    from dnd.dissection import empty_rows
    from dnd.manifest import build_manifest

    def make(*certainties: float | None) -> Dissection:
        rows = empty_rows(len(certainties), 2)
        for row, certainty in zip(rows, certainties, strict=True):
            if certainty is not None:
                row["concepts"][0], row["certainty"] = 0, certainty
        manifest, _ = build_manifest(np.zeros((1, 32), np.uint8), 0.0)
        return Dissection(rows, ("a",), manifest)

    return make


def test_budget_is_shared_by_the_layers(make_dissection: Callable[..., Dissection]) -> None:
    found = {0: make_dissection(0.5, None, 3.0, 1.5), 1: make_dissection(0.1, 0.2, 9.0)}
    everything = {0: [[0, 4]], 1: [[0, 3]]}
    settings = DissectSettings(min_certainty=2.0, budget=3)
    assert least_certain(found, everything, settings) == {(1, 0): 0, (1, 1): 1, (0, 0): 2}
    some = {0: [[3, 4]], 1: [[1, 2]]}
    assert least_certain(found, some, settings) == {(1, 1): 0, (0, 3): 1}
