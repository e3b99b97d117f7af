"""Diffusion from none to several replicas and back, in the middle of work: nothing is lost.

Real workers and a real coordinator, whose metrics page a simulated autoscaler reads as KEDA would
with our manifest; the model servers are fakes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from autoscaler import SimulatedScaler, read_metrics
from coordinator_stack import (
    SPEC,
    CoordinatorStack,
    Gate,
    Process,
    finish,
    records,
    start_stack,
    wait_until,
)

from dnd.artifacts import ArtifactStore
from dnd.jobs import JobState, LayerUnits
from dnd.testing import Fakes, start_fakes
from dnd_services.coordinator.models import ImageSetRow, JobSetRow

MANIFESTS = Path(__file__).parents[3] / "deploy/k8s/components/keda/scaled-objects.yaml"
SMALL = replace(SPEC, layers=(LayerUnits("features.conv", tuple(range(10, 17))),))
TARGET_S = 1e-4
"""Backlog for one replica while it is to be short: the fakes take milliseconds for an item."""
MOST = 2
OTHER_STAGES = "index,dissect,exemplars,caption,summarize,score,calibrate"


def scaler_of(name: str) -> SimulatedScaler:
    """The scaler that our manifest describes."""
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(MANIFESTS.read_text()))
    (manifest,) = (one for one in objects if one["metadata"] == {"name": name})
    return SimulatedScaler(manifest, TARGET_S)


@dataclass
class Servers:
    """Replicas of a fake synthesizer, and the file in which callers find them.

    One that is taken away is gone at once, as if it had not drained.

    Attributes:
        gate: What holds the drawing of replicas that are started from now on.
    """

    file: Path
    artifacts: ArtifactStore
    gate: Callable[[], Gate | None] = lambda: None
    replicas: list[Fakes] = field(default_factory=list)

    def scale(self, num: int) -> None:
        while len(self.replicas) < num:
            replica = Fakes(self.artifacts)
            replica.synthesizer.faults.call = self.gate()
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
    replicas: list[Process] = field(default_factory=list)
    leaving: list[Process] = field(default_factory=list)

    def scale(self, num: int) -> None:
        while len(self.replicas) < num:
            name = f"synthesize-{len(self.replicas) + len(self.leaving)}"
            self.stack.start_workers(name, stage="synthesize")
            self.replicas.append(self.stack.workers[name])
        while len(self.replicas) > num:
            self.leaving.append(self.replicas.pop())
            self.leaving[-1].terminate()


@dataclass
class Autoscaler:
    """Looks at the metrics and scales servers, and after them workers, which look for servers."""

    page: str
    servers: Servers
    workers: Workers
    scalers: dict[str, SimulatedScaler] = field(
        default_factory=lambda: {
            name: scaler_of(name) for name in ("synthesizer", "worker-synthesize")
        }
    )

    def look(self) -> tuple[int, int]:
        """One look; how many servers and workers there are after it."""
        metrics = read_metrics(self.page)
        groups = {"synthesizer": self.servers, "worker-synthesize": self.workers}
        for name, group in groups.items():
            wanted = self.scalers[name].desired(len(group.replicas), metrics)
            group.scale(min(wanted, MOST))
        return len(self.servers.replicas), len(self.workers.replicas)

    def look_until(self, expected: tuple[int, int]) -> None:
        def scaled() -> bool:
            time.sleep(0.3)
            return self.look() == expected

        wait_until(scaled, f"servers and workers are {expected}")

    def set_target(self, seconds: float) -> None:
        for scaler in self.scalers.values():
            scaler.target_s = seconds


def test_nothing_is_lost_from_zero_up_and_down_in_the_middle_of_batches(tmp_path: Path) -> None:
    with start_fakes(tmp_path / "artifacts") as fakes:
        servers = Servers(tmp_path / "synthesizer.json", fakes.artifacts)
        servers.scale(1)  # the first job is frozen to its weights
        settings = {
            "synthesizer": f"file:{servers.file}",
            "scale_to_zero": True,
            "max_task_items": 1,  # so that there are tasks for several
            "min_task_items": 1,
            "rpc_deadline_s": 90,  # calls wait for processes that start
        }
        with start_stack(tmp_path / "stack", fakes, **settings) as stack:
            try:
                check_scaling(stack, servers)
            finally:
                servers.scale(0)


def check_scaling(stack: CoordinatorStack, servers: Servers) -> None:
    page = json.loads((stack.folder / "coordinator.json").read_text())["metrics"]
    workers = Workers(stack)
    scaling = Autoscaler(page, servers, workers)
    stack.start_workers("others", stage=OTHER_STAGES)
    workers.scale(1)
    with stack.client("quiet") as client:  # what is to come out, by one replica that stays
        quiet = client.create_job(SMALL).id
        assert finish(client, quiet).state is JobState.COMPLETED
        expected = records(client, quiet)
    scaling.look_until((0, 0))  # idle

    gates: list[Gate] = []

    def next_gate() -> Gate:
        gates.append(Gate("SynthesizeImages"))
        return gates[-1]

    servers.gate = next_gate
    with stack.client("scaled") as client:
        job_id = client.create_job(SMALL).id  # while no synthesizer is there
        scaling.look_until((MOST, MOST))
        for gate in gates:
            gate.wait()  # each server is in the middle of a batch
        scaling.set_target(1e6)  # one replica is plenty now
        assert scaling.look() == (1, 1)
        assert scaling.look() == (1, 1), "what is under way keeps one replica"
        assert client.get_job(job_id).state is JobState.RUNNING
        for gate in gates:
            gate.open()
        assert finish(client, job_id).state is JobState.COMPLETED
        assert records(client, job_id) == expected
    scaling.look_until((0, 0))
    assert [one.wait(60) for one in workers.leaving] == [0, 0, 0]
    asked = {row.set_id for row in stack.rows(JobSetRow, job_id=job_id)}
    sets = [row for row in stack.rows(ImageSetRow) if row.id in asked]
    assert len(sets) >= MOST
    assert {(row.state, row.attempts) for row in sets} == {("DONE", 0)}
