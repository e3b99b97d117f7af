"""Percentiles of labels in a job: on fakes, in one thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from coordinator_desk import CALIBRATED, Desk

from dnd.errors import BadAnswer, BadImage, LlmRefused, Unavailable
from dnd.jobs import JobSpec, JobState, UnitState
from dnd.types import ImageSet
from dnd_services.coordinator import states
from dnd_services.coordinator.frozen import plan_of
from dnd_services.coordinator.models import ImageSetRow, JobSetRow, SetWaitRow, WorkRow
from dnd_services.coordinator.reconciler import MAX_LOSSES
from dnd_services.coordinator.store.claims import take

NUM_CONCEPTS = 12
LABELLED = ("labeled", "uncertain", "sparse")


@pytest.fixture
def calibrated(spec: JobSpec) -> JobSpec:
    """`spec` with percentiles among 12 concepts."""
    return replace(spec, overrides=CALIBRATED)


@pytest.fixture
def undisturbed(desk: Desk, calibrated: JobSpec) -> list[dict[str, Any]]:
    job_id = desk.create(calibrated, tenant="undisturbed")
    desk.run_to_end(job_id)
    return desk.records(job_id)


def sets_of(desk: Desk, job_id: str, scope: str) -> list[ImageSetRow]:
    pairs = desk.rows(JobSetRow, job_id=job_id, scope=scope)
    return [row for pair in pairs for row in desk.rows(ImageSetRow, id=pair.set_id)]


def without_labels(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a unit's percentile does not change."""
    changed = ("state", "percentile", "calibration", "digests")
    return [{k: v for k, v in record.items() if k not in changed} for record in records]


def test_units_have_percentiles_and_states_that_follow_from_them(
    desk: Desk, calibrated: JobSpec, spec: JobSpec
) -> None:
    job_id = desk.create(calibrated)
    desk.run_until_idle()
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED
    records = desk.records(job_id)
    assert [view.row.percentile for view in desk.units(job_id) if view.row] == [
        record["percentile"] for record in records
    ]
    for record in records:
        if record["state"] not in LABELLED:
            assert record["percentile"] is record["calibration"] is None
            continue
        found = record["calibration"]
        assert 0 <= record["percentile"] <= 1
        assert found["num_concepts"] + len(found["left_out"]) == NUM_CONCEPTS
        assert len(found["images"]) == len(found["activations"]) == 2
        assert found["activation"] == pytest.approx(np.mean(found["activations"]), rel=1e-6)
        assert len(found["strongest"]) == 5
        assert found["error"] == ""
        if record["state"] != "sparse":
            assert (record["state"] == "uncertain") == (record["percentile"] < 0.8)
    count = {state: sum(r["state"] == state for r in records) for state in LABELLED}
    assert count["sparse"] == 1
    assert count["labeled"] + count["uncertain"] == 17
    assert count["uncertain"] > 0

    progress = desk.progress(job_id)
    for stage in progress.stages:
        assert stage.num_open == stage.num_failed == 0
        assert stage.num_done == stage.num_total, stage.stage
        assert (stage.num_total > 0) == (stage.stage != "dissect"), stage.stage
    assert [stage.stage for stage in progress.stages][-1] == "calibrate"
    assert desk.rows(SetWaitRow) == []
    desk.check_counters(job_id)

    plain = desk.create(spec, "plain")
    desk.run_until_idle()
    assert without_labels(desk.records(plain)) == without_labels(records)
    assert {r["percentile"] for r in desk.records(plain)} == {None}


def test_percentile_is_the_share_of_weaker_concepts(desk: Desk, calibrated: JobSpec) -> None:
    """Computed again from the drawings, without the stage."""
    job_id = desk.create(calibrated)
    desk.run_until_idle()
    plan = plan_of(desk.job(job_id))
    means: dict[str, list[np.ndarray]] = {}
    for row in sets_of(desk, job_id, states.BANK):
        (measured,) = desk.services.activations.measure_images(
            plan.model, plan.layers, [_image_set(row)], plan.profile.index.pooling, 0
        )
        arrays = [desk.fakes.artifacts.get_array(ref) for ref in measured.activations_refs]  # type: ignore[union-attr]
        means[row.prompt.removeprefix("one realistic image of ")] = [a.mean(0) for a in arrays]
    assert set(means) == set(plan.bank)
    for record in desk.records(job_id):
        found = record["calibration"]
        if found:
            place = plan.layers.index(record["layer"])
            theirs = [
                means[concept][place][record["unit"]]
                for concept in plan.bank
                if concept not in found["left_out"]
            ]
            below = sum(found["activation"] > value for value in theirs)
            assert record["percentile"] == pytest.approx(below / len(theirs))


def _image_set(row: ImageSetRow) -> ImageSet:
    return ImageSet("", tuple(row.images))


def test_fresh_drawings_are_none_of_those_that_selected_the_label(
    desk: Desk, undisturbed: list[dict[str, Any]]
) -> None:
    for record in undisturbed:
        if record["calibration"]:
            selected = {image for one in record["candidates"] for image in one["images"]}
            assert not selected.intersection(record["calibration"]["images"])


def test_second_job_shares_the_bank_and_gives_the_same_percentiles(
    desk: Desk, calibrated: JobSpec
) -> None:
    first = desk.create(calibrated, "first")
    desk.run_until_idle()
    assert len(sets_of(desk, first, states.BANK)) == NUM_CONCEPTS
    drawn = desk.fakes.synthesizer.faults.num_calls["SynthesizeImages"]
    second = desk.create(calibrated, "second")
    desk.run_until_idle()
    assert desk.fakes.synthesizer.faults.num_calls["SynthesizeImages"] == drawn
    assert desk.records(second) == desk.records(first)
    ids = [{row.id for row in sets_of(desk, job, states.BANK)} for job in (first, second)]
    assert ids[0] == ids[1]


def test_bank_is_drawn_while_the_index_is_made(desk: Desk, calibrated: JobSpec) -> None:
    desk.create(calibrated)
    desk.round()
    assert {task.stage for task in desk.published} == {"index", "synthesize"}


def test_percentiles_are_equal_when_the_order_of_work_differs(
    desk: Desk, calibrated: JobSpec, undisturbed: list[dict[str, Any]]
) -> None:
    job_id = desk.create(calibrated)
    for _ in range(400):
        if not desk.round() and not desk.published:
            break
        desk.published.reverse()
        late = desk.published[1::3]
        desk.published = desk.published[::3] + desk.published[2::3]
        desk.work()
        desk.published += late
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED
    assert desk.records(job_id) == undisturbed


def test_concept_is_left_out_of_the_bank_when_it_cannot_be_drawn(
    desk: Desk, calibrated: JobSpec
) -> None:
    bad = "one realistic image of palm tree"
    desk.fakes.synthesizer.faults.item = lambda item: (
        BadAnswer("no ink") if item[0] == bad else None
    )
    job_id = desk.create(calibrated)
    desk.run_to_end(job_id)
    for record in desk.records(job_id):
        found = record["calibration"]
        if found:
            assert found["num_concepts"] + len(found["left_out"]) == NUM_CONCEPTS - 1
            assert "palm tree" not in [one["text"] for one in found["strongest"]]
    desk.check_counters(job_id)


@pytest.fixture
def broken_bank(desk: Desk) -> Iterator[None]:
    """Seven concepts of the bank cannot be drawn; all candidates can."""
    prompts = {f"one realistic image of {text}" for text in NOT_PROPOSED}
    desk.fakes.synthesizer.faults.item = lambda item: (
        BadAnswer("no ink") if item[0] in prompts else None
    )
    yield
    desk.fakes.synthesizer.faults.item = None


NOT_PROPOSED = ("eagle", "palm tree", "pizza", "bus", "hammer", "chair", "t-shirt")
"""Concepts of the bank that the fake summarizer does not propose."""


@pytest.mark.usefixtures("broken_bank")
def test_labels_stay_when_the_bank_fails_and_are_calibrated_on_retry(
    desk: Desk, calibrated: JobSpec
) -> None:
    job_id = desk.create(calibrated)
    desk.run_to_end(job_id)
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED
    units = desk.progress(job_id).units
    assert UnitState.UNCERTAIN not in units
    assert UnitState.FAILED not in units
    for record in desk.records(job_id):
        if record["state"] in LABELLED:
            assert record["labels"]
            assert record["percentile"] is None
            assert record["error"] == ""
            assert "5 of 12 concepts of the bank" in record["calibration"]["error"]
            assert "no ink" in record["calibration"]["error"]
    desk.check_counters(job_id)

    desk.fakes.synthesizer.faults.item = None
    desk.retry(job_id)
    desk.check_counters(job_id)
    desk.run_to_end(job_id)
    expected = desk.create(calibrated, tenant="undisturbed")
    desk.run_to_end(expected)
    assert desk.records(job_id) == desk.records(expected)
    desk.check_counters(job_id)
    for stage in desk.progress(job_id).stages:
        assert stage.num_failed == 0


def test_label_stays_when_its_fresh_drawings_fail(
    desk: Desk, calibrated: JobSpec, undisturbed: list[dict[str, Any]]
) -> None:
    job_id = desk.create(calibrated)
    task = desk.run_to_stage("score")
    desk.fakes.synthesizer.faults.item = lambda _: BadAnswer("no ink")
    desk.runner.run(task.stage, task.tickets)
    desk.run_to_end(job_id)
    desk.check_counters(job_id)
    units = desk.progress(job_id).units
    assert UnitState.FAILED not in units
    failed = [r for r in desk.records(job_id) if r["calibration"] and r["calibration"]["error"]]
    assert failed
    for record in failed:
        assert record["labels"]
        assert record["percentile"] is None
        assert "no ink" in record["calibration"]["error"]
    assert without_labels(desk.records(job_id)) == without_labels(undisturbed)

    desk.fakes.synthesizer.faults.item = None
    desk.retry(job_id)
    desk.run_to_end(job_id)
    assert desk.records(job_id) == undisturbed
    desk.check_counters(job_id)


def test_unit_waits_when_a_service_is_away_while_it_is_calibrated(
    desk: Desk, calibrated: JobSpec, undisturbed: list[dict[str, Any]]
) -> None:
    job_id = desk.create(calibrated)
    task = desk.run_to_stage("calibrate")
    desk.fakes.scorer.faults.call = lambda method: (
        Unavailable("gone") if method == "EmbedTexts" else None
    )
    desk.runner.run(task.stage, task.tickets)
    desk.run_until_idle()
    assert JobState(desk.job(job_id).state) is JobState.RUNNING
    desk.fakes.scorer.faults.call = None
    desk.run_to_end(job_id)
    assert desk.records(job_id) == undisturbed
    assert max(row.attempts for row in desk.rows(WorkRow, job_id=job_id)) == 0


def test_label_stays_when_its_worker_always_goes_away(desk: Desk, calibrated: JobSpec) -> None:
    job_id = desk.create(calibrated)
    lost: set[int] = set()
    for _ in range(MAX_LOSSES):
        task = desk.run_to_stage("calibrate")
        while desk.rows(WorkRow, id=task.tickets[0].id)[0].scope == states.BANK:
            desk.runner.run(task.stage, task.tickets)
            task = desk.run_to_stage("calibrate")
        with desk.store.writing() as session:
            until = desk.clock.now + desk.settings.lease_s
            assert take(session, WorkRow, task.tickets, "gone", until)
        lost = {task.tickets[0].id}
        desk.clock.now += desk.settings.lease_s + 1
        desk.published.clear()
        desk.reconciler.sweep()
    desk.run_to_end(job_id)
    (row,) = desk.rows(WorkRow, id=lost.pop())
    assert (row.state, row.losses) == (states.FAILED, MAX_LOSSES)
    (unit,) = (one for one in desk.units(job_id) if one.ordinal == row.ordinal)
    assert unit.state is UnitState.LABELED
    record = desk.records(job_id)[row.ordinal]
    assert record["labels"]
    assert "went away 5 times" in record["calibration"]["error"]
    desk.check_counters(job_id)


def test_bank_is_made_on_retry_when_no_unit_had_come_so_far(
    desk: Desk, calibrated: JobSpec, undisturbed: list[dict[str, Any]]
) -> None:
    """All live units fail before the bank is drawn: the job ends, and its bank with it."""
    desk.fakes.captioner.faults.item = lambda _: BadImage("no eyes")
    desk.fakes.synthesizer.faults.call = lambda method: (
        LlmRefused("no paint") if method == "SynthesizeImages" else None
    )
    job_id = desk.create(calibrated)
    desk.run_to_end(job_id)
    (bank,) = desk.rows(WorkRow, job_id=job_id, scope=states.BANK)
    assert bank.state == states.SKIPPED
    desk.fakes.captioner.faults.item = desk.fakes.synthesizer.faults.call = None
    desk.retry(job_id)
    desk.check_counters(job_id)
    desk.run_to_end(job_id)
    assert desk.records(job_id) == undisturbed
    desk.check_counters(job_id)
