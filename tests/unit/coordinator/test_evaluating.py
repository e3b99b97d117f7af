"""Evaluations of a job on the fakes: what is measured, what is refused, what is not done twice."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from coordinator_desk import Desk

from dnd.errors import FailedPrecondition, InvalidInput, NotFound, Unavailable, UnknownName
from dnd.jobs import EvaluationProgress, EvaluationSettings, JobSpec
from dnd.testing import Fakes
from dnd.types import RequestContext
from dnd_services.coordinator import evaluating
from dnd_services.coordinator.evaluating import Question
from dnd_services.coordinator.judging import Watcher
from dnd_services.coordinator.long_runs import LongRuns

QUICK = EvaluationSettings(num_drawings=3)
NULLS = {"shuffled", "constant", "random", "first", "oracle"}


def ask(
    desk: Desk,
    job_id: str,
    settings: EvaluationSettings = QUICK,
    sets: Mapping[str, Mapping[tuple[str, int], str]] | None = None,
    steps: list[str] | None = None,
) -> dict[str, Any]:
    seen = steps if steps is not None else []
    text = evaluating.answer(
        desk.store,
        desk.services,
        RequestContext(),
        Question(job_id, settings, sets or {}),
        lambda step, num, total: seen.append(step),
    )
    return dict(json.loads(text))


def test_evaluates_every_label_on_the_judge_half(desk: Desk, job_id: str) -> None:
    steps: list[str] = []
    found = ask(desk, job_id, steps=steps)
    assert list(dict.fromkeys(steps)) == ["embed", "draw", "compare"]
    (job,) = found["label_sets"]
    labelled = [unit for unit in desk.units(job_id) if unit.row and unit.row.labels]
    assert [(one["layer"], one["unit"], one["label"]) for one in job["units"]] == [
        (unit.layer, unit.unit, unit.row.labels[0]) for unit in labelled if unit.row
    ]
    assert found["images"] == {
        "probe": "shapes",
        "half": "judge",
        "num_images": 24,
        "num_found": 24,
    }
    assert found["num_drawings"] == 3
    assert found["judge"]["digest"] == desk.fakes.judge.digest
    assert found["selector"]["digest"] == desk.fakes.scorer.digest
    assert found["calibration"]["source"].startswith("fitted on 96 images of the select half")
    metrics = job["overall"]["metrics"]
    assert set(metrics["simulation_correlation"]["nulls"]) == NULLS
    assert set(metrics["cosy_auc"]["nulls"]) == {"shuffled", "constant"}
    assert metrics["class_similarity_judge"]["num_units"] == 4
    assert [one["layer"] for one in job["layers"]] == ["features.conv", "classifier"]


def test_correlates_the_judges_prediction_with_the_held_out_activations(
    desk: Desk, job_id: str
) -> None:
    found = ask(desk, job_id)
    row = found["label_sets"][0]["units"][0]
    with desk.store.reading() as session:
        from dnd_services.coordinator.store import jobs, reading

        job = jobs.find_job(session, "default", job_id)
        index_ref = reading.read_layers(session, job_id)[0].index_ref
    index = desk.services.activations.get_index(index_ref)
    activations = desk.fakes.artifacts.get_array(index.judge_ref)[row["unit"]]
    judge = desk.services.judge
    assert judge is not None
    from dnd.manifest import Manifest

    manifest = Manifest.load(desk.fakes.artifacts, job.frozen["manifest_ref"])
    images = np.array(judge.embed_images(manifest.refs(manifest.judge_indices())))
    (text,) = judge.embed_texts([row["label"]])
    scaled = found["calibration"]["alpha"] * (
        images @ np.array(text) + found["calibration"]["beta"]
    )
    expected = np.corrcoef(activations.astype(float), 1 / (1 + np.exp(-scaled)))[0, 1]
    assert row["simulation_correlation"] == pytest.approx(expected, abs=1e-4)


def test_draws_afresh_and_never_what_selection_has_seen(desk: Desk, job_id: str) -> None:
    used = {
        image
        for record in desk.records(job_id)
        for candidate in record["candidates"]
        for image in candidate["images"]
    }
    drawn: set[str] = set()
    client = desk.services.synthesizer
    original = type(client).synthesize_images

    def record(self: Any, *arguments: Any) -> Any:
        answers = original(self, *arguments)
        drawn.update(answers)
        return answers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(client), "synthesize_images", record)
        ask(desk, job_id)
    assert drawn
    assert not drawn & used


def test_answers_the_same_question_without_measuring_again(desk: Desk, job_id: str) -> None:
    first = ask(desk, job_id)
    desk.fakes.stop("synthesizer")
    steps: list[str] = []
    assert ask(desk, job_id, steps=steps) == first
    assert steps == []
    desk.fakes.start("synthesizer")


def test_uses_as_many_drawings_as_the_profile_says(desk: Desk, spec: JobSpec) -> None:
    overrides = {**spec.overrides, "evaluate.num_drawings": "2"}
    job_id = desk.create(replace(spec, overrides=overrides))
    desk.run_to_end(job_id)
    assert ask(desk, job_id, EvaluationSettings())["num_drawings"] == 2
    without = ask(desk, job_id, EvaluationSettings(num_drawings=0))
    assert "cosy_auc" not in without["label_sets"][0]["overall"]["metrics"]


def test_evaluates_one_layer_only_when_asked(desk: Desk, job_id: str) -> None:
    found = ask(desk, job_id, replace(QUICK, layer="classifier"))
    assert {row["layer"] for row in found["label_sets"][0]["units"]} == {"classifier"}
    with pytest.raises(UnknownName, match="Did you mean 'classifier'"):
        ask(desk, job_id, replace(QUICK, layer="clasifier"))


def test_takes_an_even_sample_of_many_images(desk: Desk, job_id: str) -> None:
    found = ask(desk, job_id, replace(QUICK, max_images=12))
    assert (found["images"]["num_images"], found["images"]["num_found"]) == (12, 24)


def test_evaluates_on_all_images_of_another_probe_set(
    desk: Desk, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dnd.testing import target

    monkeypatch.setitem(target.PROBES, "drawings", 60)
    found = ask(desk, job_id, replace(QUICK, probe="drawings"))
    assert found["images"] == {
        "probe": "drawings",
        "half": "all",
        "num_images": 60,
        "num_found": 60,
    }


def test_leaves_out_images_of_another_probe_set_that_selection_has_seen(
    desk: Desk, job_id: str
) -> None:
    found = ask(desk, job_id, replace(QUICK, probe="shapes"))
    assert found["images"]["num_images"] == 24


def test_puts_labels_from_elsewhere_beside_the_jobs(desk: Desk, job_id: str) -> None:
    theirs = {("classifier", 0): "a wheel", ("classifier", 3): "a tree", ("classifier", 8): "x"}
    found = ask(desk, job_id, sets={"clip": theirs})
    job, clip = found["label_sets"]
    assert (job["name"], clip["name"]) == ("job", "clip")
    assert [(row["unit"], row["label"]) for row in clip["units"]] == [(0, "a wheel"), (3, "a tree")]
    assert set(clip["overall"]["metrics"]["simulation_correlation"]["nulls"]) == {*NULLS, "job"}


def test_refuses_labels_of_other_units(desk: Desk, job_id: str) -> None:
    with pytest.raises(InvalidInput, match=r"no unit in common .* of layer9, the job's labels are"):
        ask(desk, job_id, sets={"clip": {("layer9", 0): "a"}})


@pytest.mark.parametrize("name", ["job", "", "x" * 65])
def test_refuses_names_of_label_sets_that_would_confuse(desk: Desk, job_id: str, name: str) -> None:
    with pytest.raises(InvalidInput, match="expected 1 to 64 characters"):
        ask(desk, job_id, sets={name: {("classifier", 0): "a"}})


def test_refuses_a_judge_that_selected_unless_it_is_forced(desk: Desk, job_id: str) -> None:
    assert desk.services.judge is not None
    same = replace(desk.services, judge=desk.services.scorer)
    desk.services = same
    with pytest.raises(FailedPrecondition, match=r"very model that selected .* --force"):
        ask(desk, job_id)
    forced = ask(desk, job_id, replace(QUICK, force=True))
    assert forced["judge"]["digest"] == forced["selector"]["digest"]


def test_refuses_to_work_without_a_judge(desk: Desk, job_id: str) -> None:
    desk.services = replace(desk.services, judge=None)
    with pytest.raises(FailedPrecondition, match=r"no judge: .*services.judge.model"):
        ask(desk, job_id)


def test_refuses_a_job_without_held_out_images(desk: Desk, spec: JobSpec) -> None:
    overrides = {**spec.overrides, "index.judge_fraction": "0"}
    job_id = desk.create(replace(spec, overrides=overrides))
    desk.run_to_end(job_id)
    with pytest.raises(FailedPrecondition, match=r"'shapes' has 0 images: .*--probe"):
        ask(desk, job_id)
    with pytest.raises(FailedPrecondition, match="'shapes' has 0 images that the job's labels"):
        ask(desk, job_id, replace(QUICK, probe="shapes"))


def test_refuses_what_makes_no_sense(desk: Desk, job_id: str, spec: JobSpec) -> None:
    with pytest.raises(InvalidInput, match="num_drawings is 1"):
        ask(desk, job_id, EvaluationSettings(num_drawings=1))
    with pytest.raises(InvalidInput, match="max_images is 3"):
        ask(desk, job_id, replace(QUICK, max_images=3))
    with pytest.raises(UnknownName, match="probe set"):
        ask(desk, job_id, replace(QUICK, probe="absent"))
    with pytest.raises(NotFound):
        ask(desk, "absent")
    with pytest.raises(FailedPrecondition, match="has no label"):
        ask(desk, desk.create(spec, request_id="another"))


def test_says_how_many_labels_could_not_be_drawn(desk: Desk, job_id: str, fakes: Fakes) -> None:
    label = ask(desk, job_id, replace(QUICK, num_drawings=0))["label_sets"][0]["units"][0]["label"]
    fault = InvalidInput("This prompt is refused.")
    fakes.synthesizer.faults.item = lambda item: fault if label in item[0] else None
    found = ask(desk, job_id, replace(QUICK, seed=5))
    assert "labels could not be drawn" in found["notes"][0]
    assert "This prompt is refused." in found["notes"][0]
    assert found["label_sets"][0]["units"][0]["cosy_auc"] is None


def test_takes_the_cosine_itself_when_nothing_is_kept_to_fit_to(desk: Desk, spec: JobSpec) -> None:
    overrides = {
        **spec.overrides,
        "index.keep_matrix": "false",
        "score.probe_correlation": "false",
    }
    job_id = desk.create(replace(spec, overrides=overrides))
    desk.run_to_end(job_id)
    found = ask(desk, job_id)
    assert found["calibration"]["alpha"] == 0
    assert found["calibration"]["source"].startswith("the cosine itself")


async def test_runs_once_for_all_who_ask_the_same() -> None:
    evaluations = LongRuns[str]()
    gate, calls = threading.Event(), []

    def evaluate(watch: Watcher) -> str:
        calls.append(1)
        watch("draw", 1, 2)
        gate.wait(10)
        return "{}"

    async def follow() -> list[EvaluationProgress | str]:
        return [update async for update in evaluations.follow("same", evaluate)]

    both = [asyncio.create_task(follow()) for _ in range(2)]
    await asyncio.sleep(0.6)
    gate.set()
    expected = [EvaluationProgress("draw", 1, 2), "{}"]
    assert await asyncio.gather(*both) == [expected, expected]
    assert calls == [1]
    evaluations.close()


async def test_gives_up_at_the_next_step_when_the_process_ends() -> None:
    evaluations = LongRuns[str]()
    started, gate = threading.Event(), threading.Event()

    def evaluate(watch: Watcher) -> str:
        started.set()
        gate.wait(10)
        watch("draw", 1, 2)
        return "{}"

    async def follow() -> list[EvaluationProgress | str]:
        return [update async for update in evaluations.follow("one", evaluate)]

    task = asyncio.create_task(follow())
    await asyncio.to_thread(started.wait)
    evaluations.close()
    gate.set()
    with pytest.raises(Unavailable, match="shutting down"):
        await task
