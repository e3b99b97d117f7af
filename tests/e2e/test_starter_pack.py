"""Repetition, workers, kills and batches: the same job gives the same labels."""

from pathlib import Path
from typing import Any

from e2e.conftest import LAYERS, Records, comparable, kill_and_repair, label, stack

from dnd.jobs import Job, JobState

Undisturbed = tuple[Job, Records, dict[str, Any]]


def test_every_unit_is_labelled_with_all_its_evidence(undisturbed: Undisturbed) -> None:
    job, records, _ = undisturbed
    assert job.state is JobState.COMPLETED
    assert list(records) == [(layer.layer, unit) for layer in LAYERS for unit in layer.units]
    for record in records.values():
        assert record["state"] == "labeled", record["error"]
        assert record["profile"] == "starter"
        assert len(record["exemplars"]) == 10
        assert all(e["caption"] for e in record["exemplars"])
        assert 1 <= len(record["labels"]) <= 3
        assert record["tokens"]["num_calls"] >= 5
        for candidate in record["candidates"]:
            assert len(candidate["images"]) == len(candidate["activations"]) == 10
            assert candidate["probe_correlation"] is not None
    crops = [
        e["box"] for (layer, _), r in records.items() for e in r["exemplars"] if layer != "_fc"
    ]
    assert any(crops), "units of a convolution have crops"


def test_files_of_the_probe_set_are_named_nowhere(undisturbed: Undisturbed) -> None:
    _, records, _ = undisturbed
    assert ".png" not in str(records)


def test_services_batch_what_waits(undisturbed: Undisturbed) -> None:
    _, _, counts = undisturbed
    for name in ("captioner", "synthesizer", "scorer"):
        assert counts[name].num_items >= 32
        assert counts[name].mean_batch >= 8, name


def test_four_workers_give_the_same_records(
    undisturbed: Undisturbed, tmp_path: Path, probe_folder: Path
) -> None:
    with stack(tmp_path / "home", probe_folder, worker_threads=4) as home:
        _, records = label(home)
    assert comparable(records) == comparable(undisturbed[1])


def test_killed_worker_and_service_cost_nothing_but_time(
    undisturbed: Undisturbed, tmp_path: Path, probe_folder: Path
) -> None:
    disturb = kill_and_repair("worker-synthesize", "worker-score", "synthesizer")
    with stack(tmp_path / "home", probe_folder) as home:
        job, records = label(home, disturb)
    assert job.state is JobState.COMPLETED
    assert comparable(records) == comparable(undisturbed[1])
