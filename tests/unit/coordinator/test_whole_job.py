"""A job from its making to its end, on fakes, in one thread."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from coordinator_desk import PLAIN, SMALL, Desk

from dnd.jobs import JobSpec, JobState, LayerUnits, UnitState
from dnd.testing.values import embed, number
from dnd_services.coordinator import states
from dnd_services.coordinator.models import SetWaitRow, UnitRow, WorkRow

ALL_DEAD = JobSpec("tiny", (LayerUnits("features.conv", (13, 29)),), "shapes", "starter", PLAIN)


def test_job_ends_with_each_unit_in_one_terminal_state(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(spec)
    desk.run_until_idle()
    job = desk.job(job_id)
    assert JobState(job.state) is JobState.COMPLETED
    assert job.num_ended == job.num_units == 20
    progress = desk.progress(job_id)
    assert progress.units == {
        UnitState.LABELED: 17,
        UnitState.SPARSE: 1,
        UnitState.DEAD: 1,
        UnitState.TIED: 1,
    }
    assert progress.pause_reason == ""
    *_, dissect = (one for one in progress.stages if one.stage == "dissect")
    assert dissect.num_total == dissect.num_done == 0
    for stage in (one for one in progress.stages if one is not dissect):
        assert stage.num_open == stage.num_failed == 0
        assert stage.num_done == stage.num_total > 0
        assert stage.item_s > 0
    assert desk.rows(SetWaitRow) == []
    desk.check_counters(job_id)


def test_records_hold_all_evidence_in_the_order_of_the_job(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(spec)
    desk.run_until_idle()
    records = desk.records(job_id)
    asked = [(one.layer, unit) for one in spec.layers for unit in one.units]
    assert [(r["layer"], r["unit"]) for r in records] == asked
    first = records[0]
    assert first["state"] == "labeled"
    assert len(first["exemplars"]) == 5
    assert all(exemplar["caption"] for exemplar in first["exemplars"])
    assert first["exemplars"][1]["box"] == [2, 2, 12, 12]
    assert len(first["deciles"]) == 10
    assert 1 <= len(first["labels"]) <= 3
    best = first["candidates"][first["labels"][0]["candidate"]]
    assert best["text"] == first["labels"][0]["text"]
    assert len(best["images"]) == len(best["activations"]) == len(best["ranks"]) == 3
    assert first["labels"][0]["score"] == best["score"]
    assert 0 <= first["auc"] <= 1
    assert first["tokens"]["num_calls"] == 3
    assert first["digests"]["captioner"] == desk.fakes.captioner.digest
    assert {"exemplars", "caption", "summarize", "synthesize", "score"} == set(
        desk.units(job_id)[0].row.timings  # type: ignore[union-attr]
    )
    dead = next(record for record in records if record["state"] == "dead")
    assert dead["labels"] == dead["exemplars"] == dead["candidates"] == []


def test_contrast_of_a_job_is_in_its_records(desk: Desk, spec: JobSpec) -> None:
    plain = desk.create(replace(spec, layers=spec.layers[1:]), "plain")
    contrast = desk.create(
        replace(
            spec, layers=spec.layers[1:], overrides={**spec.overrides, "propose.contrast": "3"}
        ),
        "contrast",
    )
    desk.run_until_idle()
    before, after = (
        [[one["caption"] for one in record["deciles"]] for record in desk.records(job_id)]
        for job_id in (plain, contrast)
    )
    assert not any(caption for captions in before for caption in captions)
    assert any(captions[:5].count(None) == 2 for captions in after if captions)
    assert all(not any(captions[5:]) for captions in after)


def test_labels_of_all_exemplars_are_candidates_in_the_records(desk: Desk, spec: JobSpec) -> None:
    settings = {"caption.num_labels": "2", "propose.max_candidates": "20"}
    layers = (LayerUnits("features.conv", (4, 5)),)
    job_id = desk.create(replace(spec, layers=layers, overrides={**spec.overrides, **settings}))
    desk.run_until_idle()
    origins = [
        candidate["origin"]
        for record in desk.records(job_id)
        for candidate in record["candidates"]
        if candidate["score"] is not None
    ]
    assert {"summary", "vision_language"} <= set(origins)


def test_records_are_equal_when_the_order_of_work_differs(desk: Desk, spec: JobSpec) -> None:
    first = desk.create(spec, "first")
    desk.run_until_idle()
    second = desk.create(spec, "second", tenant="other")  # shares no drawings with the first
    for _ in range(400):
        if not desk.round() and not desk.published:
            break
        desk.published.reverse()
        late = desk.published[1::3]
        desk.published = desk.published[::3] + desk.published[2::3]
        desk.work()
        desk.published += late
    assert JobState(desk.job(second).state) is JobState.COMPLETED
    assert desk.records(first) == desk.records(second)


def test_dead_and_tied_units_cost_nothing(desk: Desk) -> None:
    job_id = desk.create(ALL_DEAD)
    desk.run_until_idle()
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED
    assert [unit.state for unit in desk.units(job_id)] == [UnitState.DEAD, UnitState.DEAD]
    assert desk.fakes.activations.faults.num_calls["SelectExemplars"] == 0
    assert {row.scope for row in desk.rows(WorkRow)} == {states.SHARD, states.MERGE, states.LAYER}
    (comparison,) = desk.rows(WorkRow, scope=states.LAYER)
    assert comparison.state == states.SKIPPED


def test_sparse_unit_is_not_labelled_when_it_has_two_images(desk: Desk) -> None:
    units = LayerUnits("features.conv", (15, 31))
    job_id = desk.create(JobSpec("tiny", (units,), "shapes", "starter", PLAIN))
    desk.run_until_idle()
    four, two = desk.units(job_id)
    assert four.state is two.state is UnitState.SPARSE
    assert four.row is not None
    assert two.row is not None
    assert four.row.labels
    assert two.row.labels == []
    assert desk.fakes.captioner.faults.num_calls["CaptionImages"] == 1


def test_index_is_made_in_shards_and_merged_once(desk: Desk) -> None:
    units = LayerUnits("classifier", (1, 2))
    job_id = desk.create(JobSpec("tiny", (units,), "photos", "starter", PLAIN))
    desk.run_until_idle()
    shards = desk.rows(WorkRow, job_id=job_id, scope=states.SHARD)
    assert len(shards) == 8
    assert all(shard.output.startswith("sha256:") for shard in shards)
    assert desk.fakes.activations.faults.num_calls["MergeShards"] == 1


def test_units_get_rows_in_chunks_ahead_of_the_work(desk: Desk, spec: JobSpec) -> None:
    desk.tune(chunk_units=3, open_units=7)
    job_id = desk.create(spec)
    most = 0
    while desk.job(job_id).state == "running":
        desk.round()
        most = max(most, len(desk.rows(UnitRow, state="pending")))
        desk.work()
    assert 0 < most <= 7
    assert desk.job(job_id).num_ended == 20


def test_unit_of_several_kinds_ends_with_labels_of_each(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def embed_halves(*parts: Any) -> np.ndarray:
        """Images are of two kinds."""
        vector = 0.3 * embed(*parts)
        vector[number("kind", *parts) % 2] += 1.0
        return np.asarray(vector / np.linalg.norm(vector))

    monkeypatch.setattr("dnd.testing.scorer.embed", embed_halves)
    overrides = SMALL | {"facets.enabled": "true"}
    units = LayerUnits("features.conv", (1, 2, 13, 15))
    job_id = desk.create(JobSpec("tiny", (units,), "shapes", "starter", overrides))
    desk.run_until_idle()
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED
    first, second, dead, sparse = desk.records(job_id)
    for record in (first, second):
        assert record["state"] == "labeled"
        assert len(record["facets"]) == 2
        assert record["labels"] == record["facets"][0]["labels"]
        for facet in record["facets"]:
            assert facet["labels"]
            assert len(facet["exemplars"]) == 5
            assert all(one["images"] for one in facet["candidates"] if not one["dropped"])
        sources = [{e["source"] for e in facet["exemplars"]} for facet in record["facets"]]
        assert not sources[0] & sources[1]
    assert dead["facets"] == sparse["facets"] == []
    desk.check_counters(job_id)
