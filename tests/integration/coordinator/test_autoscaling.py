"""Diffusion from none to several replicas and back, in the middle of work: nothing is lost.

Real workers and a real coordinator, whose metrics page a simulated autoscaler reads as KEDA would
with our manifest; the model servers are fakes.
"""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from autoscaler import SimulatedScaler
from coordinator_stack import SPEC, CoordinatorStack, finish, records, start_stack, wait_until

from dnd.artifacts import ArtifactStore
from dnd.jobs import JobState
from dnd.testing import Fakes, start_fakes
from dnd_services.coordinator.models import ImageSetRow, JobSetRow

MANIFESTS = Path(__file__).parents[3] / "deploy/k8s/components/keda/scaled-objects.yaml"
TARGET_S = 0.01
"""Backlog for one replica: the fakes of the quiet run take milliseconds for an item."""
OTHER_STAGES = "index,dissect,exemplars,caption,summarize,score,calibrate"


def manifest_of(name: str) -> dict[str, object]:
    objects: list[dict[str, object]] = list(yaml.safe_load_all(MANIFESTS.read_text()))
    return next(one for one in objects if one["metadata"] == {"name": name})


@dataclass
class Servers:
    """Replicas of a fake synthesizer, and the file in which callers find them.

    Attributes:
        latency_s: Time of a call of a replica that is started from now on, seconds.
    """

    file: Path
    artifacts: ArtifactStore
    latency_s: float = 0.0
    replicas: list[Fakes] = field(default_factory=list)

    def scale(self, num: int) -> None:
        while len(self.replicas) < num:
            replica = Fakes(self.artifacts)
            replica.synthesizer.faults.latency_s = self.latency_s
            replica.start("synthesizer")
            self.replicas.append(replica)
            self._write()
        while len(self.replicas) > num:
            gone = self.replicas.pop()
            self._write()
            gone.stop("synthesizer")

    def _write(self) -> None:
        addresses = [one.targets["synthesizer"] for one in self.replicas]
        self.file.write_text(json.dumps({"addresses": addresses}))


@dataclass
class Workers:
    """Worker processes of the stage. Those taken away get SIGTERM and end when they can."""

    stack: CoordinatorStack
    names: list[str] = field(default_factory=list)
    num_started: int = 0

    def scale(self, num: int) -> None:
        while len(self.names) < num:
            self.num_started += 1
            self.names.append(f"synthesize-{self.num_started}")
            self.stack.start_workers(self.names[-1], stage="synthesize", threads=1)
        while len(self.names) > num:
            self.stack.workers[self.names.pop()].send_signal(signal.SIGTERM)


def test_nothing_is_lost_from_zero_up_and_down_in_the_middle_of_batches(tmp_path: Path) -> None:
    with start_fakes(ArtifactStore(tmp_path / "artifacts")) as fakes:
        servers = Servers(tmp_path / "synthesizer.json", fakes.artifacts)
        servers.scale(1)
        settings = {
            "synthesizer": f"file:{servers.file}",
            "scale_to_zero": True,
            "max_task_items": 2,  # so that there are tasks for several
            "min_task_items": 1,
        }
        with start_stack(tmp_path / "stack", fakes, **settings) as stack:
            try:
                check_scaling(stack, servers)
            finally:
                servers.scale(0)


def check_scaling(stack: CoordinatorStack, servers: Servers) -> None:
    page = json.loads((stack.folder / "coordinator.json").read_text())["metrics"]
    workers = Workers(stack)
    stack.start_workers("others", stage=OTHER_STAGES)
    workers.scale(1)
    with stack.client("quiet") as client:  # what is to come out, by one replica that stays
        quiet = client.create_job(SPEC).id
        assert finish(client, quiet).state is JobState.COMPLETED
        expected = records(client, quiet)

    scalers = [
        (SimulatedScaler(manifest_of("worker-synthesize"), page, TARGET_S), workers),
        (SimulatedScaler(manifest_of("synthesizer"), page, TARGET_S), servers),
    ]
    seen: list[tuple[int, int]] = []

    def step() -> tuple[int, int]:
        """One look of the autoscaler; workers and servers after it."""
        for scaler, group in scalers:
            current = len(group.names if isinstance(group, Workers) else group.replicas)
            group.scale(min(scaler.desired(current), 2))  # two cores
        seen.append((len(workers.names), len(servers.replicas)))
        return seen[-1]

    wait_until(lambda: step() == (0, 0), "idle, both are scaled to zero")
    servers.latency_s = 0.5
    with stack.client("scaled") as client:
        job_id = client.create_job(SPEC).id  # while no synthesizer is there
        wait_until(lambda: step() == (2, 2), "both are scaled up", 60.0)
        wait_until(lambda: running_sets(stack, job_id) > 0, "drawings are under way")
        for scaler, _ in scalers:
            scaler.target_s = 1e6  # one replica is plenty now
        assert step() == (1, 1)
        assert client.get_job(job_id).state is JobState.RUNNING
        for scaler, _ in scalers:
            scaler.target_s = TARGET_S
        until = time.monotonic() + 120
        while not client.get_job(job_id).state.ended:
            assert time.monotonic() < until, seen
            step()
            time.sleep(0.2)
        assert client.get_job(job_id).state is JobState.COMPLETED
        assert records(client, job_id) == expected
    wait_until(lambda: step() == (0, 0), "both are scaled to zero again")
    asked = {row.set_id for row in stack.rows(JobSetRow, job_id=job_id)}
    sets = [row for row in stack.rows(ImageSetRow) if row.id in asked]
    assert {row.state for row in sets} == {"DONE"}
    assert max(row.attempts for row in sets) == 0


def running_sets(stack: CoordinatorStack, job_id: str) -> int:
    asked = {row.set_id for row in stack.rows(JobSetRow, job_id=job_id)}
    return sum(row.id in asked for row in stack.rows(ImageSetRow, state="RUNNING"))
