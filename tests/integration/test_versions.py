"""Two versions beside each other, as in a rolling upgrade: jobs go on, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coordinator_stack import SPEC, finish, records, wait_until
from observed import Watched, watched_stack
from other_version import PROTOS, RELEASED, find_breaking, generate, make_next_version

from dnd.jobs import JobState, spec_to_message
from dnd_services.coordinator.celery_app import MESSAGE_VERSION, RUN, VERSION_HEADER, make_app

# Only the stubs of the last release, and nothing else of this project.
OLD_CLIENT = """
import json, sys, time
import grpc
from dnd.v1 import coordinator_pb2 as pb2, coordinator_pb2_grpc

address, spec = sys.argv[1], bytes.fromhex(sys.argv[2])
with grpc.insecure_channel(address) as channel:
    stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
    spec = pb2.JobSpec.FromString(spec)
    job = stub.CreateJob(pb2.CreateJobRequest(request_id="old", spec=spec)).job
    again = stub.CreateJob(pb2.CreateJobRequest(request_id="old", spec=spec)).job
    assert again.id == job.id
    while job.state == pb2.JOB_STATE_RUNNING:
        time.sleep(0.1)
        job = stub.GetJob(pb2.GetJobRequest(job_id=job.id)).job
    found = stub.ListLabels(pb2.ListLabelsRequest(job_id=job.id, page_size=100)).units
    labels = [[unit.layer, unit.unit, list(unit.labels)] for unit in found]
state = pb2.JobState.Name(job.state)
print(json.dumps({"job": job.id, "state": state, "labels": labels, "stubs": pb2.__file__}))
"""

# The dnd of the next version: what it can say to this one.
NEXT_CLIENT = """
import json, sys
from dnd.client import Client
from dnd.errors import InvalidInput
from dnd.v1 import coordinator_pb2 as pb2

address, spec = sys.argv[1], bytes.fromhex(sys.argv[2])
spec = pb2.JobSpec.FromString(spec)
with Client(address, retry_s=0) as client:
    def create(request_id):
        request = pb2.CreateJobRequest(request_id=request_id, spec=spec)
        return client._rpc.ask("CreateJob", request, pb2.CreateJobResponse).job

    job = create("next")
    spec.next_field = "an option that this version does not have"
    try:
        create("more")
        refusal = ""
    except InvalidInput as error:
        refusal = f"{type(error).__name__}: {error.message}"
print(json.dumps({"job": job.id, "refusal": refusal}))
"""


@pytest.fixture(scope="module")
def next_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_next_version(tmp_path_factory.mktemp("next"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, next_version: Path) -> Iterator[Watched]:
    """Stage services of the next version; a coordinator and a worker of this one."""
    with watched_stack(
        tmp_path_factory.mktemp("versions"), {}, services_source=next_version
    ) as stack:
        yield stack


@pytest.fixture(scope="module")
def quiet(stack: Watched) -> list[dict[str, Any]]:
    """The records of a job that nothing disturbs; tenants share no drawings."""
    with stack.client("quiet") as client:
        job = finish(client, client.create_job(SPEC).id)
        assert (job.state, job.num_failed) == (JobState.COMPLETED, 0)
        return records(client, job.id)


def run_client(program: str, source: Path, stack: Watched) -> dict[str, Any]:
    """What a client of another version prints about a job with the settings of SPEC."""
    address = json.loads((stack.folder / "coordinator.json").read_text())["address"]
    spec = spec_to_message(SPEC).SerializeToString().hex()
    done = subprocess.run(
        [sys.executable, "-c", program, address, spec],
        env={"PYTHONPATH": str(source), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_protos_break_nothing_that_was_released(next_version: Path) -> None:
    assert find_breaking(PROTOS, RELEASED) == ""
    assert find_breaking(next_version.parent / "protos", PROTOS) == ""


def test_renamed_field_and_removed_method_are_found(tmp_path: Path) -> None:
    for file in PROTOS.rglob("*.proto"):
        text = file.read_text().replace("string model_digest", "string digest_of_model")
        text = "\n".join(line for line in text.splitlines() if "rpc EmbedTexts" not in line)
        target = tmp_path / file.relative_to(PROTOS)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    found = find_breaking(tmp_path, RELEASED)
    assert "model_digest" in found
    assert "EmbedTexts" in found


def test_client_of_the_last_release_gets_the_labels_that_ours_gets(
    stack: Watched, quiet: list[dict[str, Any]], tmp_path: Path
) -> None:
    generate(RELEASED, tmp_path)
    seen = run_client(OLD_CLIENT, tmp_path, stack)
    assert Path(seen["stubs"]).is_relative_to(tmp_path)
    assert seen["state"] == "JOB_STATE_COMPLETED"
    with stack.client("default") as client:
        ours = [[unit.layer, unit.unit, list(unit.labels)] for unit in client.labels(seen["job"])]
    assert seen["labels"] == ours
    assert sum(bool(labels) for _, _, labels in ours) >= 8


def test_client_of_the_next_version_is_served_but_for_what_we_do_not_know(
    stack: Watched, quiet: list[dict[str, Any]], next_version: Path
) -> None:
    seen = run_client(NEXT_CLIENT, next_version, stack)
    assert "fields that this server does not know (numbers 1000)" in seen["refusal"]
    with stack.client("default") as client:
        assert finish(client, seen["job"]).state is JobState.COMPLETED


def test_job_goes_on_while_coordinator_and_workers_are_replaced_by_the_next_version(
    stack: Watched, quiet: list[dict[str, Any]], next_version: Path
) -> None:
    with stack.client("upgraded", retry_s=60) as client:
        job_id = client.create_job(SPEC).id
        before = stack.source
        stack.source = next_version
        try:
            stack.start_workers("next")
            assert stack.stop_worker("worker") == 0
            stack.kill_coordinator()
            stack.start_coordinator()
        finally:
            stack.source = before
    with stack.client("upgraded", retry_s=60) as client:
        job = finish(client, job_id)
        assert (job.state, job.num_failed) == (JobState.COMPLETED, 0)
        assert records(client, job_id) == quiet
    assert max(row.attempts for row in stack.claimables(job_id)) == 0


def test_message_of_a_later_version_waits_for_a_worker_that_knows_it(stack: Watched) -> None:
    app = make_app(stack.redis_url)
    queue = "dnd.score.batch"
    headers = {VERSION_HEADER: MESSAGE_VERSION + 1}
    app.send_task(RUN, args=[{"of": "a later kind"}], headers=headers, queue=queue, retry=False)
    (name,) = stack.workers
    wait_until(lambda: "is put back" in stack.log(name), "a worker has had it")
    assert stack.stop_worker(name) == 0
    assert stack.num_messages() == 1
    (message,) = stack.redis.lrange(queue, 0, -1)  # type: ignore[misc]
    assert json.loads(message)["headers"][VERSION_HEADER] == MESSAGE_VERSION + 1
    stack.redis.delete(queue)
    app.close()


def test_message_of_the_version_before_there_were_headers_is_taken(stack: Watched) -> None:
    app = make_app(stack.redis_url)
    app.send_task(RUN, args=["score", [[0, 0]]], queue="dnd.score.batch", retry=False)
    stack.start_workers("last")
    wait_until(lambda: not stack.num_messages(), "it is taken")
    wait_until(lambda: not stack.redis.hlen("unacked"), "it is worked off")
    assert "put back" not in stack.log("last")
    assert "Traceback" not in stack.log("last")
    app.close()
