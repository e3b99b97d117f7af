"""A copy that was made in the middle of a job, brought up in a new place: the job goes on there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordinator_stack import SPEC, CoordinatorStack, Gate, finish, records, start_stack

from dnd.client import Client
from dnd.jobs import JobState
from dnd.stack.backup import copy_artifacts, copy_record
from dnd.testing import Fakes, start_fakes


def test_a_job_goes_on_from_a_copy_of_the_record_and_the_artifacts(
    stack: CoordinatorStack,
    fakes: Fakes,
    client: Client,
    tenant: str,
    undisturbed: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    gate = Gate("ScoreConcepts", num_free=2)
    fakes.scorer.faults.call = gate
    job_id = client.create_job(SPEC).id
    gate.wait()
    copy_record(stack.folder / "record.db", tmp_path / "record.db")
    copy_artifacts(fakes.artifacts.root, tmp_path / "artifacts")
    gate.open()
    assert finish(client, job_id).state is JobState.COMPLETED

    url = f"sqlite:///{tmp_path}/record.db"
    with (
        start_fakes(tmp_path / "artifacts") as others,
        start_stack(tmp_path / "restored", others, url) as restored,
        restored.client(tenant) as again,
    ):
        assert again.get_job(job_id).state is JobState.RUNNING
        assert any(row.state == "DONE" for row in restored.claimables(job_id))
        restored.start_workers("first")
        assert finish(again, job_id).state is JobState.COMPLETED
        assert records(again, job_id) == records(client, job_id) == undisturbed
