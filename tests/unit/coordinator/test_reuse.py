"""What another job has computed from the same inputs is not computed again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from coordinator_desk import CALIBRATED, SMALL, Desk

from dnd import stages
from dnd.artifacts import ArtifactStore
from dnd.calibration import Bank, bank_plan
from dnd.errors import BadAnswer, BadImage
from dnd.jobs import JobSpec, JobState, LayerUnits, Method
from dnd.testing import Fakes, start_fakes
from dnd.testing.faults import fail_times
from dnd_services.coordinator import outputs, states
from dnd_services.coordinator.frozen import plan_of
from dnd_services.coordinator.garbage import collect
from dnd_services.coordinator.models import CounterRow, ImageSetRow, ResultRow, WorkRow
from dnd_services.coordinator.outputs import artifact_of
from dnd_services.coordinator.store.results import COMPUTED, REUSED, read_reuse

BANK = "bank"
STAGES = {"exemplars", "caption", "summarize", "synthesize", "score", "calibrate", BANK}


@pytest.fixture
def fakes(tmp_path: Path) -> Iterator[Fakes]:
    """With artifacts of their own."""
    with start_fakes(ArtifactStore(tmp_path / "artifacts")) as fakes:
        yield fakes


@pytest.fixture
def spec() -> JobSpec:
    """4 live units, with percentiles."""
    units = LayerUnits("features.conv", (4, 5, 6, 7))
    return JobSpec("tiny", (units,), "shapes", "starter", CALIBRATED, seed=7)


def run(desk: Desk, spec: JobSpec, request_id: str, tenant: str = "default") -> str:
    job_id = desk.create(spec, request_id, tenant)
    desk.run_to_end(job_id)
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED
    return job_id


def computed(desk: Desk, job_id: str) -> set[str]:
    """Stages of which a job has computed something."""
    rows = desk.rows(CounterRow, job_id=job_id, name=COMPUTED)
    return {row.state for row in rows if row.num}


def num_reused(desk: Desk, job_id: str) -> dict[str, int]:
    return {row.state: row.num for row in desk.rows(CounterRow, job_id=job_id, name=REUSED)}


def changed(spec: JobSpec, **overrides: str) -> JobSpec:
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    return replace(spec, overrides={**spec.overrides, **named})


def test_nothing_is_computed_again_when_the_same_job_is_made_again(
    desk: Desk, spec: JobSpec
) -> None:
    first = run(desk, spec, "first")
    assert computed(desk, first) == STAGES
    second = run(desk, spec, "second")
    assert computed(desk, second) == set()
    assert desk.records(second) == desk.records(first)
    reused = num_reused(desk, second)
    assert {stage: reused[stage] for stage in ("caption", "score")} == {"caption": 4, "score": 4}
    assert reused["synthesize"] > 12
    with desk.store.reading() as session:
        assert read_reuse(session)["caption", COMPUTED] == 4
        assert read_reuse(session)["caption", REUSED] == 4


def test_another_scoring_function_redraws_nothing(desk: Desk, spec: JobSpec) -> None:
    run(desk, spec, "first")
    services = desk.fakes.captioner, desk.fakes.summarizer, desk.fakes.synthesizer
    before = [dict(one.faults.num_calls) for one in services]
    other = changed(spec, score__function="squared_mean", calibration__enabled="false")
    second = run(desk, other, "second")
    assert computed(desk, second) == {"score"}
    for one, calls in zip(services, before, strict=True):
        asked = {
            name: num for name, num in one.faults.num_calls.items() if not name.startswith("Get")
        }
        assert asked == {name: num for name, num in calls.items() if not name.startswith("Get")}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"exemplars__num_per_decile": "4"}, {"exemplars"}),
        ({"exemplars__num_exemplars": "4"}, STAGES - {"calibrate", BANK}),
        ({"caption__num_beams": "2"}, {"caption"}),
        ({"propose__temperature": "0.5"}, {"summarize"}),
        ({"propose__max_candidates": "2"}, STAGES - {"exemplars", "caption", BANK}),
        ({"synthesis__guidance": "2.5"}, {"synthesize", "score", "calibrate", BANK}),
        ({"score__num_labels": "2"}, {"score"}),
        ({"calibration__max_text_cosine": "0.7"}, {"calibrate"}),
        ({"calibration__num_concepts": "11"}, {"calibrate", BANK}),
        ({"calibration__num_images": "3"}, {"synthesize", "calibrate"}),
        ({"calibration__threshold": "0.1"}, set()),
        ({"evaluate__num_drawings": "4"}, set()),
    ],
)
def test_changing_a_setting_computes_what_depends_on_it(
    desk: Desk, spec: JobSpec, change: dict[str, str], expected: set[str]
) -> None:
    run(desk, spec, "first")
    assert computed(desk, run(desk, changed(spec, **change), "second")) == expected


def test_prompts_are_drawn_once_when_units_of_two_jobs_ask_at_once(
    desk: Desk, spec: JobSpec
) -> None:
    ids = [desk.create(spec, name) for name in ("first", "second")]
    desk.run_until_idle()
    assert all(JobState(desk.job(job_id).state) is JobState.COMPLETED for job_id in ids)
    assert desk.records(ids[0]) == desk.records(ids[1])
    drawings = desk.fakes.synthesizer.faults.num_items
    assert set(drawings.values()) == {1}
    assert len(drawings) == sum(len(row.images) for row in desk.rows(ImageSetRow))


def test_another_seed_asks_the_language_model_again(desk: Desk, spec: JobSpec) -> None:
    run(desk, spec, "first")
    found = computed(desk, run(desk, replace(spec, seed=8), "second"))
    assert "summarize" in found
    assert not {"exemplars", "caption"} & found


DISSECTED = JobSpec(
    "tiny",
    (LayerUnits("features.conv", tuple(range(4, 12))), LayerUnits("classifier", (0, 9))),
    "shapes",
    "starter",
    SMALL,
    method=Method.CLIP_DISSECT,
    concept_set="classes",
)


def num_dissected(desk: Desk) -> int:
    """Layers that the scorer has been asked to label from a concept set."""
    return desk.fakes.scorer.faults.num_calls["DissectLayer"]


def test_layer_is_labelled_once_from_a_concept_set(desk: Desk) -> None:
    first = run(desk, DISSECTED, "first")
    assert (computed(desk, first), num_dissected(desk)) == ({"dissect"}, 2)
    other_units = replace(DISSECTED, layers=(LayerUnits("features.conv", (20, 21)),))
    second = run(desk, DISSECTED, "second")
    assert desk.records(second) == desk.records(first)
    assert num_reused(desk, second) == {"dissect": 2}
    third = run(desk, replace(DISSECTED, seed=8), "third")
    assert computed(desk, second) == computed(desk, third) == set()
    run(desk, other_units, "other units")  # an index of one layer instead of two
    assert num_dissected(desk) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"overrides": {**SMALL, "dissect.similarity": '"cos"'}},
        {"overrides": {**SMALL, "dissect.num_concepts": "4"}},
        {"concept_set": "common-english"},
        {"probe": "photos"},
    ],
    ids=["similarity", "num_concepts", "concept set", "probe set"],
)
def test_layer_is_labelled_again_when_what_it_depends_on_differs(
    desk: Desk, change: dict[str, Any]
) -> None:
    run(desk, DISSECTED, "first")
    assert computed(desk, run(desk, replace(DISSECTED, **change), "second")) == {"dissect"}
    assert num_dissected(desk) == 4


def test_layer_is_labelled_again_by_another_scorer_and_for_another_tenant(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(desk, DISSECTED, "r", "one")
    run(desk, DISSECTED, "r", "two")
    assert num_dissected(desk) == 4
    monkeypatch.setattr(desk.fakes.scorer, "digest", "1" * 64)
    run(desk, DISSECTED, "again", "one")
    assert num_dissected(desk) == 6


def test_dissection_and_bank_are_made_again_when_parts_of_them_are_lost(
    desk: Desk, spec: JobSpec
) -> None:
    artifacts = desk.fakes.artifacts
    dissected, described = run(desk, DISSECTED, "first"), run(desk, spec, "described")
    (bank,) = desk.rows(WorkRow, job_id=described, stage="calibrate", scope=states.BANK)
    lost = [row.output for row in desk.rows(WorkRow, job_id=dissected, stage="dissect")]
    lost.append(outputs.load(artifacts, bank.output, Bank).activations_refs[0])
    for ref in lost:
        digest = ref.removeprefix("sha256:")
        (artifacts.root / "blobs" / digest[:2] / digest).unlink()
    assert computed(desk, run(desk, DISSECTED, "second")) == {"dissect"}
    again = run(desk, spec, "described again")
    assert computed(desk, again) == {BANK}
    assert desk.records(again) == desk.records(described)


def test_tenants_share_results_only_where_the_operator_lets_them(desk: Desk, spec: JobSpec) -> None:
    run(desk, spec, "r", "one")
    assert computed(desk, run(desk, spec, "r", "two")) == STAGES
    desk.tune(share_drawings=True)
    run(desk, spec, "again", "one")  # its results so far were its own
    other = run(desk, spec, "again", "two")
    assert not {"exemplars", "caption", "summarize", "score"} & computed(desk, other)


def test_nothing_is_reused_when_the_operator_turns_it_off(desk: Desk, spec: JobSpec) -> None:
    desk.tune(reuse_results=False)
    run(desk, spec, "first")
    assert desk.rows(ResultRow) == []
    assert computed(desk, run(desk, spec, "second")) == STAGES - {"synthesize"}
    run(desk, DISSECTED, "dissected")
    assert desk.rows(ResultRow) == []


def test_answers_of_a_model_without_digest_are_of_use_to_their_own_job(
    desk: Desk, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk.fakes.summarizer, "digest", "")
    run(desk, spec, "first")
    found = computed(desk, run(desk, spec, "second"))
    assert "summarize" in found
    assert "caption" not in found


def test_captions_that_miss_one_are_not_kept(desk: Desk, spec: JobSpec) -> None:
    desk.fakes.captioner.faults.item = fail_times(1, BadImage("This one cannot be read."))
    few = changed(spec, caption__min_captions="3")
    run(desk, few, "first")
    desk.fakes.captioner.faults.item = None
    assert "caption" in computed(desk, run(desk, few, "second"))


def test_bank_that_misses_a_concept_because_of_an_error_is_not_kept(
    desk: Desk, spec: JobSpec
) -> None:
    first = desk.create(spec, "first")
    plan = plan_of(desk.job(first))
    bad = stages.image_set_key(bank_plan(plan), stages.prompt_for(plan, plan.bank[0]))
    desk.fakes.activations.faults.item = lambda item: BadAnswer("no") if item == bad else None
    desk.run_to_end(first)
    desk.fakes.activations.faults.item = None
    assert BANK in computed(desk, run(desk, spec, "second"))
    assert BANK not in computed(desk, run(desk, spec, "third"))


def test_results_are_computed_again_when_garbage_collection_took_them(
    desk: Desk, spec: JobSpec
) -> None:
    first = run(desk, spec, "first")
    assert desk.rows(ResultRow)
    desk.delete(first)
    desk.sweep_until_purged()
    collect(desk.store, desk.fakes.artifacts, 0.0, True, lambda *_: None)
    assert desk.rows(ResultRow) == []
    assert computed(desk, run(desk, spec, "second")) >= STAGES - {"index"}


def test_results_are_computed_again_when_their_artifacts_are_lost(
    desk: Desk, spec: JobSpec
) -> None:
    run(desk, spec, "first")
    for row in desk.rows(ResultRow):
        digest = artifact_of(row.ref).removeprefix("sha256:")
        (desk.fakes.artifacts.root / "blobs" / digest[:2] / digest).unlink(missing_ok=True)
    assert computed(desk, run(desk, spec, "second")) == STAGES - {"synthesize"}
