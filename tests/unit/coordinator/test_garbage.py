"""What jobs refer to stays, whatever its age; the rest goes once nobody has used it for a while."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coordinator_desk import Desk

from dnd.artifacts import ArtifactStore
from dnd.errors import BadAnswer, FailedPrecondition, Unavailable
from dnd.jobs import Garbage, JobSpec, LayerUnits, UnitState
from dnd.manifest import build_manifest
from dnd.testing import Fakes, start_fakes
from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator import marks, states
from dnd_services.coordinator.garbage import collect
from dnd_services.coordinator.marks import Marks
from dnd_services.coordinator.models import ImageSetRow, JobSetRow, LabelVectorRow
from dnd_services.coordinator.servicer import CoordinatorServicer
from dnd_services.coordinator.spare_drawings import SpareDrawings
from dnd_services.coordinator.store import paging
from dnd_services.coordinator.store.search import hash_label

DAY_S = 24 * 3600.0


@pytest.fixture
def fakes(tmp_path: Path) -> Iterator[Fakes]:
    """With artifacts of their own."""
    with start_fakes(ArtifactStore(tmp_path / "artifacts")) as fakes:
        yield fakes


@pytest.fixture
def spec(spec: JobSpec) -> JobSpec:
    """4 units, of them one dead."""
    return replace(spec, layers=(LayerUnits("features.conv", (11, 12, 13, 14)),))


def run_gc(
    desk: Desk, *, remove: bool, grace_s: float = DAY_S, labels_only: bool = False
) -> Garbage:
    artifacts = desk.fakes.artifacts
    return collect(desk.store, artifacts, grace_s, remove, lambda *_: None, labels_only=labels_only)


def make_old(artifacts: ArtifactStore) -> None:
    """Nothing has been stored or recalled for two days."""
    past = time.time() - 2 * DAY_S
    for path in artifacts.root.rglob("*"):
        if path.is_file():
            os.utime(path, (past, past))


def contents(artifacts: ArtifactStore) -> set[str]:
    return {stored.name for stored in artifacts.list_contents()}


def images_of(record: Any) -> set[str]:
    """Every reference in a record."""
    return {f"sha256:{part[:64]}" for part in json.dumps(record).split("sha256:")[1:]}


def test_what_a_job_refers_to_stays_when_it_is_old(desk: Desk, spec: JobSpec) -> None:
    artifacts = desk.fakes.artifacts
    job_id = desk.create(spec)
    desk.run_to_end(job_id)
    records = desk.records(job_id)
    make_old(artifacts)
    run_gc(desk, remove=True)  # measurements that only tasks needed
    needed = contents(artifacts)
    garbage = artifacts.put_bytes(b"nobody needs this")
    make_old(artifacts)
    young = artifacts.put_bytes(b"nor this, and it is young")
    found = run_gc(desk, remove=False)
    assert (found.num_artifacts, found.num_bytes, found.removed) == (1, 17, False)
    assert contents(artifacts) == needed | {garbage, young}
    found = run_gc(desk, remove=True)
    assert (found.num_artifacts, found.num_kept, found.removed) == (1, len(needed) + 1, True)
    assert contents(artifacts) == needed | {young}
    assert desk.records(job_id) == records
    assert images_of(records) <= needed


def test_deleted_jobs_free_what_no_other_job_needs(desk: Desk, spec: JobSpec) -> None:
    artifacts = desk.fakes.artifacts
    first = desk.create(spec, "first")
    desk.run_to_end(first)
    other = replace(spec, layers=(LayerUnits("features.conv", (7, 8, 14)),))
    second = desk.create(other, "second")
    desk.run_to_end(second)
    make_old(artifacts)
    records = desk.records(second)
    desk.delete(first)
    desk.sweep_until_purged()
    before = contents(artifacts)
    found = run_gc(desk, remove=True)
    assert found.num_artifacts == len(before) - len(contents(artifacts)) > 0
    assert desk.records(second) == records
    assert images_of(records) <= contents(artifacts)
    desk.delete(second)
    desk.sweep_until_purged()
    run_gc(desk, remove=True)
    assert contents(artifacts) == set()


def test_running_job_finishes_alike_when_garbage_is_collected_meanwhile(
    desk: Desk, spec: JobSpec
) -> None:
    undisturbed = desk.create(spec, tenant="undisturbed")
    desk.run_to_end(undisturbed)
    expected = desk.records(undisturbed)
    desk.delete(undisturbed)
    job_id = desk.create(spec)
    for stage in ("exemplars", "summarize", "synthesize", "score"):
        task = desk.run_to_stage(stage)
        make_old(desk.fakes.artifacts)
        run_gc(desk, remove=True)
        desk.runner.run(task.stage, task.tickets)
    desk.run_to_end(job_id)
    assert desk.records(job_id) == expected


def test_short_grace_is_refused_while_a_job_goes_on(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(spec)
    with pytest.raises(FailedPrecondition, match=f"Job {job_id} has not ended.*at least 3600 s"):
        run_gc(desk, remove=False, grace_s=3599)
    desk.cancel(job_id)
    assert run_gc(desk, remove=False, grace_s=0).num_artifacts == 0


def test_what_was_recalled_is_spared_with_all_that_it_refers_to(desk: Desk) -> None:
    artifacts = desk.fakes.artifacts
    picture = artifacts.put_bytes(b"\x89PNG of a probe set")
    digest = np.frombuffer(bytes.fromhex(picture.removeprefix("sha256:")), np.uint8)
    manifest_ref = build_manifest(digest[None], 0.0)[0].save(artifacts)
    shard = artifacts.put_bytes(json.dumps({"manifest_ref": manifest_ref}).encode())
    artifacts.remember("index of this shard", shard)
    make_old(artifacts)
    assert run_gc(desk, remove=False).num_artifacts == 3
    assert artifacts.recall("index of this shard") == shard
    assert run_gc(desk, remove=True).num_artifacts == 0
    assert contents(artifacts) == {picture, manifest_ref, shard}
    make_old(artifacts)
    assert run_gc(desk, remove=True).num_artifacts == 3
    assert artifacts.recall("index of this shard") is None
    assert list(artifacts.list_names()) == []


def test_what_is_used_during_the_sweep_is_spared(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = desk.fakes.artifacts
    ref = artifacts.put_bytes(b"stored again just in time")
    make_old(artifacts)
    listed = list(artifacts.list_contents())
    monkeypatch.setattr(artifacts, "list_contents", lambda: iter(listed))  # as it was before
    artifacts.put_bytes(b"stored again just in time")
    found = run_gc(desk, remove=True)
    assert (found.num_artifacts, found.num_kept) == (0, 1)
    assert ref in artifacts


def test_record_is_read_some_rows_at_a_time(
    desk: Desk, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = desk.create(spec)
    desk.run_to_end(job_id)
    assert len(desk.rows(ImageSetRow)) > 6
    make_old(desk.fakes.artifacts)
    expected = run_gc(desk, remove=False)
    monkeypatch.setattr(paging, "ROWS_AT_ONCE", 3)
    assert run_gc(desk, remove=False) == expected


def drawings_of(records: list[dict[str, Any]], *, of_labels: bool) -> set[str]:
    """Drawings of the labels of some records, or of the other candidates."""
    found = {True: set[str](), False: set[str]()}
    for record in records:
        labels = {label["text"] for label in record["labels"]}
        for one in record["candidates"]:
            found[one["text"] in labels].update(one["images"])
    return found[True] if of_labels else found[False] - found[True]


@pytest.fixture
def one_label(spec: JobSpec) -> JobSpec:
    """Units keep one label of several candidates."""
    return replace(spec, overrides={**spec.overrides, "score.num_labels": "1"})


@pytest.fixture
def first(desk: Desk, one_label: JobSpec) -> str:
    """A job that has ended."""
    job_id = desk.create(one_label, "first")
    desk.run_to_end(job_id)
    return job_id


def start_scoring_again(desk: Desk, spec: JobSpec) -> str:
    """A job that needs the drawings of `spec` again, about to be scored; nothing is young."""
    job_id = desk.create(replace(spec, overrides={**spec.overrides, "score.beta": "2"}), "again")
    desk.published.append(desk.run_to_stage("score"))
    make_old(desk.fakes.artifacts)
    return job_id


def test_drawings_that_are_no_label_s_go_and_are_drawn_again_for_who_asks(
    desk: Desk, one_label: JobSpec, first: str
) -> None:
    artifacts = desk.fakes.artifacts
    records = desk.records(first)
    losers, winners = (drawings_of(records, of_labels=one) for one in (False, True))
    assert losers
    assert winners <= contents(artifacts)
    make_old(artifacts)
    run_gc(desk, remove=True)
    assert losers <= contents(artifacts)
    seen = run_gc(desk, remove=False, labels_only=True)
    assert seen.num_artifacts == len(losers)
    assert run_gc(desk, remove=True, labels_only=True).num_artifacts == len(losers)
    assert not losers & contents(artifacts)
    assert winners <= contents(artifacts)
    assert desk.records(first) == records  # they list what was drawn
    assert run_gc(desk, remove=True, labels_only=True).num_artifacts == 0

    second = desk.create(one_label, "second")
    desk.run_to_end(second)
    assert desk.records(second) == records
    assert losers <= contents(artifacts)
    desk.check_counters(first)
    desk.check_counters(second)


def test_drawings_stay_while_they_are_young_or_a_job_may_need_them(
    desk: Desk, one_label: JobSpec, first: str
) -> None:
    artifacts = desk.fakes.artifacts
    losers = drawings_of(desk.records(first), of_labels=False)
    assert run_gc(desk, remove=True, labels_only=True).num_artifacts == 0
    make_old(artifacts)
    going_on = start_scoring_again(desk, one_label)
    run_gc(desk, remove=True, labels_only=True)
    assert losers <= contents(artifacts)
    desk.run_to_end(going_on)
    make_old(artifacts)
    run_gc(desk, remove=True, labels_only=True)
    left = drawings_of(desk.records(first) + desk.records(going_on), of_labels=False)
    assert left
    assert not left & contents(artifacts)


def test_drawings_that_a_job_asks_for_while_garbage_is_collected_stay(
    desk: Desk, one_label: JobSpec, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losers = drawings_of(desk.records(first), of_labels=False)
    make_old(desk.fakes.artifacts)
    let_go, asking = SpareDrawings.let_go, []

    def ask_before(*given: Any, **named: Any) -> None:
        asking.append(start_scoring_again(desk, one_label))
        let_go(*given, **named)

    monkeypatch.setattr(SpareDrawings, "let_go", ask_before)
    run_gc(desk, remove=True, labels_only=True)
    assert losers <= contents(desk.fakes.artifacts)
    desk.run_to_end(*asking)


def test_drawings_of_a_job_that_can_be_retried_stay(desk: Desk, one_label: JobSpec) -> None:
    undisturbed = desk.create(one_label, tenant="undisturbed")
    desk.run_to_end(undisturbed)
    spoilt = [one["text"] for one in desk.records(undisturbed)[1]["candidates"]]
    desk.fakes.scorer.faults.item = lambda item: BadAnswer("no") if spoilt[0] in item else None
    job_id = desk.create(one_label)
    desk.run_to_end(job_id)
    assert desk.progress(job_id).units[UnitState.FAILED] > 0
    make_old(desk.fakes.artifacts)
    run_gc(desk, remove=True, labels_only=True)
    asked = {pair.set_id for pair in desk.rows(JobSetRow, job_id=job_id)}
    assert {row.state for row in desk.rows(ImageSetRow) if row.id in asked} == {states.DONE}
    desk.fakes.scorer.faults.item = None
    desk.retry(job_id)
    desk.run_to_end(job_id)
    assert desk.records(job_id) == desk.records(undisturbed)
    desk.check_counters(job_id)


def test_marks_know_what_was_added_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "_SORTED_AT_ONCE", 10)
    marked = Marks()
    digests = [f"{number:016x}{'0' * 48}" for number in range(0, 105, 2)]
    assert all(marked.add(digest) for digest in digests)
    assert not any(marked.add(f"sha256:{digest}") for digest in digests)
    assert len(marked) == len(digests)
    assert not any(f"{number:016x}{'0' * 48}" in marked for number in range(1, 105, 2))


def test_collection_gives_up_while_it_reads_the_record_when_the_process_shuts_down(
    desk: Desk,
) -> None:
    def watch(*_: object) -> None:
        raise Unavailable("The coordinator is shutting down.")

    with pytest.raises(Unavailable):
        collect(desk.store, desk.fakes.artifacts, DAY_S, True, watch)


async def test_embeddings_go_with_the_last_unit_that_has_their_label(
    desk: Desk, spec: JobSpec, servicer: CoordinatorServicer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "ROWS_AT_ONCE", 2)
    first = desk.create(spec, "first")
    desk.run_to_end(first)
    second = desk.create(replace(spec, layers=(LayerUnits("features.conv", (14,)),)), "second")
    desk.run_to_end(second)
    search = pb2.SearchLabelsRequest(text="red", mode=pb2.SEARCH_MODE_MEANING)
    await servicer.SearchLabels(search, None)
    labels = {
        job: {one for view in desk.units(job) if view.row for one in view.row.labels}
        for job in (first, second)
    }
    only_first = len(labels[first] - labels[second])
    assert only_first > 0
    assert run_gc(desk, remove=True).num_vectors == 0
    assert len(desk.rows(LabelVectorRow)) == len(labels[first] | labels[second])
    desk.delete(first)
    assert run_gc(desk, remove=False).num_vectors == only_first
    assert run_gc(desk, remove=True).num_vectors == only_first
    assert {row.label for row in desk.rows(LabelVectorRow)} == set(map(hash_label, labels[second]))
    await servicer.SearchLabels(search, None)
