"""The SDK against a coordinator over real gRPC."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fake_coordinator import FakeCoordinator, serve_fake
from PIL import Image
from result_samples import LAYERS, make_sample

import dnd
from dnd.client import IMAGES_PER_CALL, Client
from dnd.errors import (
    AlreadyExists,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
    UnknownName,
)
from dnd.images import encode_png
from dnd.jobs import (
    Garbage,
    GarbageProgress,
    JobSpec,
    JobState,
    LayerUnits,
    StageCount,
    UnitState,
    spec_from_message,
)
from dnd.report.tables import COLUMNS
from dnd.tokens import Role
from dnd.types import Priority

SPEC = JobSpec(
    "small-net",
    (LayerUnits("head", (0, 1, 5)), LayerUnits("features.3")),
    "squares",
    "starter",
    {"synthesis.num_steps": "8"},
    2**63,
    Priority.INTERACTIVE,
)


@pytest.fixture
def fake() -> FakeCoordinator:
    return FakeCoordinator(make_sample(5, states={4: UnitState.FAILED}))


@pytest.fixture
def client(fake: FakeCoordinator) -> Iterator[Client]:
    with serve_fake(fake) as address, Client(address, retry_s=2.0) as client:
        yield client


def test_exports_only_what_is_promised_when_imported() -> None:
    assert dnd.__all__ == [
        "AsyncClient",
        "Client",
        "DndError",
        "Estimate",
        "Job",
        "JobSpec",
        "JobState",
        "LayerUnits",
        "UnitResult",
        "UnitState",
        "labels_frame",
    ]
    assert all(hasattr(dnd, name) for name in dnd.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = dnd.Nothing  # type: ignore[attr-defined]


def test_loads_no_grpc_when_only_dnd_is_imported() -> None:
    code = "import sys, dnd; sys.exit(any(m in sys.modules for m in ('grpc', 'numpy', 'click')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sends_the_whole_specification_when_a_job_is_created(
    client: Client, fake: FakeCoordinator
) -> None:
    job = client.create_job(SPEC)
    assert job.id == "job-1"
    assert fake.last_spec is not None
    assert spec_from_message(fake.last_spec) == SPEC


def test_answers_the_same_job_when_the_request_id_is_repeated(client: Client) -> None:
    first = client.create_job(SPEC, "request-1")
    assert client.create_job(SPEC, "request-1").id == first.id
    with pytest.raises(AlreadyExists):
        client.create_job(replace(SPEC, seed=1), "request-1")
    assert client.create_job(SPEC).id != first.id


def test_reads_a_job_field_by_field_when_it_is_asked_for(
    client: Client, fake: FakeCoordinator
) -> None:
    client.create_job(SPEC)
    expected = fake.samples["job-1"].job
    assert client.get_job("job-1") == expected
    assert client.get_job() == expected
    assert expected.num_ended == 4


def test_raises_the_servers_error_when_a_name_is_unknown(client: Client) -> None:
    with pytest.raises(NotFound, match="There is no job 'x'"):
        client.get_job("x")
    with pytest.raises(UnknownName, match="Did you mean 'small-net'"):
        client.layers("smal-net")
    client.create_job(SPEC)
    with pytest.raises(NotFound, match="no unit 77"):
        client.unit("job-1", "head", 77)


def test_lists_everything_once_when_it_takes_several_pages(
    client: Client, fake: FakeCoordinator
) -> None:
    for _ in range(5):
        client.create_job(SPEC)
    ids = [job.id for job in client.list_jobs(page_size=2)]
    assert ids == ["job-5", "job-4", "job-3", "job-2", "job-1"]
    units = list(client.labels("job-1", page_size=2))
    assert [unit.unit for unit in units] == [0, 1, 2, 3, 4]
    assert units == fake.samples["job-1"].units
    assert fake.calls.count("ListLabels") == 3


def test_leaves_out_units_and_records_when_not_asked_for(client: Client) -> None:
    client.create_job(SPEC)
    failed = list(client.labels("job-1", state=UnitState.FAILED, with_records=False))
    assert [(unit.unit, unit.record) for unit in failed] == [(4, None)]
    assert list(client.labels("job-1", layer="other")) == []
    unit = client.unit("job-1", "head", 2)
    assert unit.labels == ("red square 2", "plain ground")
    assert unit.record is not None
    assert unit.record["auc"] == 0.75


def test_refuses_a_page_size_that_no_server_takes(client: Client) -> None:
    with pytest.raises(InvalidInput, match="page_size = 0"):
        list(client.labels("job-1", page_size=0))


def test_fetches_images_in_order_when_there_are_more_than_a_call_takes(
    client: Client, fake: FakeCoordinator
) -> None:
    client.create_job(SPEC)
    images = fake.samples["job-1"].images
    refs = list(images) * 4
    assert len(refs) > 2 * IMAGES_PER_CALL
    assert client.images("job-1", refs) == [images[ref] for ref in refs]
    assert client.images("job-1", []) == []


def test_describes_targets_layers_and_cost(client: Client, fake: FakeCoordinator) -> None:
    assert client.targets().models == ("small-net",)
    assert client.layers("small-net") == LAYERS
    assert client.estimate(SPEC) == fake.estimate


def test_changes_a_job_when_told_to(client: Client) -> None:
    client.create_job(SPEC)
    assert client.pause_job("job-1").state is JobState.PAUSED
    assert client.resume_job("job-1").state is JobState.RUNNING
    assert client.cancel_job("job-1").state is JobState.CANCELLED
    assert client.retry_job("job-1").state is JobState.RUNNING


def test_deletes_a_job(client: Client, fake: FakeCoordinator) -> None:
    client.create_job(SPEC)
    client.delete_job("job-1")
    assert list(client.list_jobs()) == []
    with pytest.raises(NotFound):
        client.delete_job("job-1")


def test_collects_garbage_and_asks_again_when_the_call_breaks(
    client: Client, fake: FakeCoordinator
) -> None:
    fake.failures = [("CollectGarbage", Unavailable("going away"))]
    seen: list[GarbageProgress] = []
    found = client.collect_garbage(3600.0, on_progress=seen.append)
    assert found == Garbage(3, 5_000_000, 7, removed=False)
    assert seen == [GarbageProgress("mark", 5000)]
    assert fake.last_collection is not None
    assert fake.last_collection.grace_s == 3600.0
    assert client.collect_garbage(remove=True).removed


def test_watches_until_the_job_has_ended_when_the_stream_breaks(
    client: Client, fake: FakeCoordinator
) -> None:
    client.create_job(SPEC)
    ended = fake.samples["job-1"].job
    running = replace(ended, state=JobState.RUNNING, ended_at_s=0.0)
    fake.steps = [replace(running, stages=(StageCount("index", n),)) for n in range(3)]
    fake.failures = [("WatchJob", Unavailable("going away"))]
    seen = list(client.watch("job-1"))
    assert [job.stages[0].num_done for job in seen[:3]] == [0, 1, 2]
    assert seen[-1] == ended
    assert fake.calls.count("WatchJob") == 2


def test_repeats_a_call_when_its_failure_may_pass(client: Client, fake: FakeCoordinator) -> None:
    fake.failures = [
        ("", Unavailable("starting")),
        ("", Overloaded("full", retry_after_s=0.01)),
    ]
    assert client.targets().probes == ("squares",)
    assert fake.calls == ["ListTargets"] * 3


def test_gives_up_at_once_when_told_not_to_repeat(fake: FakeCoordinator) -> None:
    fake.failures = [("", Unavailable("starting"))]
    with (
        serve_fake(fake) as address,
        Client(address, retry_s=0) as client,
        pytest.raises(Unavailable, match="starting"),
    ):
        client.targets()
    assert fake.calls == ["ListTargets"]


def test_says_which_service_is_away_when_nothing_listens() -> None:
    with (
        Client("127.0.0.1:1", retry_s=0) as client,
        pytest.raises(Unavailable, match="The coordinator service did not answer"),
    ):
        client.targets()


def test_follows_a_restart_when_given_an_endpoints_file(tmp_path, fake: FakeCoordinator) -> None:
    file = tmp_path / "coordinator.json"
    with Client(f"file:{file}", retry_s=15.0) as client:
        with serve_fake(fake) as address:
            file.write_text(f'{{"address": "{address}"}}')
            assert client.targets().models == ("small-net",)
        with serve_fake(fake) as address:
            file.write_text(f'{{"address": "{address}"}}')
            assert client.targets().models == ("small-net",)


@pytest.fixture
def done(fake: FakeCoordinator) -> FakeCoordinator:
    """The fake with its job made already."""
    assert fake.on_create is not None
    fake.samples["job-1"] = fake.on_create
    return fake


def test_units_of_an_export_are_of_one_moment(client: Client, done: FakeCoordinator) -> None:
    export = client.export("job-1")
    done.samples.clear()
    units = list(export.units)
    assert export.job.id == "job-1"
    assert [unit.unit for unit in units] == [0, 1, 2, 3, 4]
    assert units[0].record is not None
    with pytest.raises(NotFound):
        client.export("job-1")


def test_search_goes_on_over_pages(client: Client, done: FakeCoordinator) -> None:
    everything = list(client.search(""))
    assert len(everything) > 2
    assert list(client.search("", page_size=1)) == everything
    assert {hit.label for hit in everything} <= {
        label for hit in everything for label in hit.unit.labels
    }
    assert done.last_search is not None
    assert done.last_search.mode == 1
    list(client.search("x", by_meaning=True, job_id="job-1"))
    assert (done.last_search.mode, done.last_search.job_id) == (2, "job-1")


def test_watch_resumes_where_it_was(client: Client, done: FakeCoordinator) -> None:
    done.steps = [replace(done.samples["job-1"].job, state=JobState.RUNNING)]
    list(client.watch("job-1"))
    assert done.resumed == [""]
    done.breaks = 1
    done.steps = [replace(done.samples["job-1"].job, state=JobState.RUNNING)]
    list(client.watch("job-1"))
    assert done.resumed == ["", "", "token"]


def test_token_goes_with_every_call(done: FakeCoordinator) -> None:
    with serve_fake(done) as address, Client(address, token="dnd_x") as client:
        client.get_job()
        list(client.watch("job-1"))
        assert set(done.sent) == {"Bearer dnd_x"}
        token, secret = client.create_token("ci", "team-a", Role.READ)
        assert (token.role, secret) == (Role.READ, "dnd_secret")
        assert client.list_tokens() == [token]
        assert client.revoke_token(token.id).revoked_at_s > 0


async def test_async_client_answers_like_the_other(done: FakeCoordinator) -> None:
    with serve_fake(done) as address, Client(address) as client:
        async with dnd.AsyncClient(address) as other:
            assert await other.get_job() == client.get_job()
            assert await other.targets() == client.targets()
            assert await other.layers("small-net") == client.layers("small-net")
            assert [job async for job in other.list_jobs()] == list(client.list_jobs())
            assert [one async for one in other.watch("job-1")] == list(client.watch("job-1"))
            labels = [unit async for unit in other.labels("job-1", page_size=2)]
            assert labels == list(client.labels("job-1"))
            export = await other.export()
            assert [unit async for unit in export.units] == labels
            assert [hit async for hit in other.search("")] == list(client.search(""))
            picture = encode_png(Image.new("RGB", (4, 4)))
            assert await other.try_image(picture) == client.try_image(picture)
            assert client.try_image(picture)[0].exemplar_level == 0.75
            words = ("a dog", "head", 1, "job-1")
            assert await other.try_words(*words) == client.try_words(*words)
            assert [one.activation for one in client.try_words(*words).drawings] == [3, 2, 1]
            with pytest.raises(NotFound):
                await other.unit("job-1", "head", 99)
            jobs = await asyncio.gather(*(other.get_job() for _ in range(8)))
            assert {job.id for job in jobs} == {"job-1"}


def test_async_client_has_the_methods_of_the_other() -> None:
    def public(cls: type) -> set[str]:
        return {name for name in vars(cls) if not name.startswith("_")}

    for_operators = {"collect_garbage", "create_token", "list_tokens", "revoke_token"}
    assert public(dnd.AsyncClient) == public(Client) - for_operators


def test_labels_become_a_frame_with_types(client: Client, done: FakeCoordinator) -> None:
    frame = dnd.labels_frame(client, "job-1")
    assert list(frame.columns) == list(COLUMNS)
    assert frame["unit"].tolist() == [0, 1, 2, 3, 4]
    assert str(frame.dtypes["percentile"]) == "Float64"
    assert frame["state"].tolist()[4] == "failed"
    assert frame["label"].tolist()[0] == next(client.labels("job-1")).labels[0]
