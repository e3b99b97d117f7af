"""How a deployment is at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from dnd.cluster.api import ClusterApi, Object
from dnd.errors import DndError

COMPONENT = "app.kubernetes.io/component"
GPU = "nvidia.com/gpu"
PAUSED = "autoscaling.keda.sh/paused-replicas"


@dataclass(frozen=True)
class Rollout:
    """How far a Deployment is on its way to what was asked for.

    Attributes:
        desired: Replicas that there should be.
        updated: Replicas of the newest version.
        available: Replicas that serve.
        num_gpus: That a replica asks for.
        problem: Why it will not get there by itself; empty while it may.
        observed: Whether the cluster has seen the newest version.
    """

    name: str
    desired: int
    updated: int
    available: int
    num_gpus: int = 0
    problem: str = ""
    observed: bool = True

    @property
    def is_done(self) -> bool:
        return self.observed and self.updated == self.available == self.desired


@dataclass(frozen=True)
class Snapshot:
    """Objects of the namespace as the API server has them, and the coordinator's backlog.

    Attributes:
        gpus: GPUs that nodes offer; None if nodes may not be looked at.
        hpas: HorizontalPodAutoscalers but those that KEDA has made for its ScaledObjects.
        has_keda: Whether the cluster knows ScaledObjects.
        backlog: Seconds of work by stage; empty if no coordinator could be asked.
    """

    deployments: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    claims: Sequence[Object] = ()
    jobs: Sequence[Object] = ()
    scaled: Sequence[Object] = ()
    hpas: Sequence[Object] = ()
    warnings: Sequence[Object] = ()
    gpus: int | None = None
    has_keda: bool = False
    backlog: Mapping[str, float] = field(default_factory=dict)

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout_of(one) for one in self.deployments]

    def pods_of(self, component: str) -> list[Object]:
        """Pods of a service, worker or job."""
        return [one for one in self.pods if component_of(one) == component]


def read_snapshot(api: ClusterApi) -> Snapshot:
    """Reads the namespace; what may not be looked at is left out.

    Raises:
        Unavailable: The cluster does not answer.
        BadSetting: The namespace may not be looked at.
    """
    return Snapshot(
        deployments=api.list(f"{api.apps}/deployments"),
        pods=api.list(f"{api.root}/pods"),
        claims=api.list(f"{api.root}/persistentvolumeclaims"),
        jobs=api.list(api.jobs),
        scaled=api.list(api.keda),
        hpas=[one for one in api.list(api.autoscalers) if not _is_of_keda(one)],
        warnings=[e for e in api.list(f"{api.root}/events") if e.get("type") == "Warning"],
        gpus=_count_gpus(api),
        has_keda=api.knows("/apis/keda.sh/v1alpha1"),
        backlog=_read_backlog(api),
    )


def rollout_of(deployment: Object) -> Rollout:
    """How far a Deployment is."""
    spec, status = deployment["spec"], deployment.get("status", {})
    problem = ""
    for condition in status.get("conditions", ()):
        if condition.get("reason") == "ProgressDeadlineExceeded":
            problem = "the rollout got nowhere in its time"
        elif condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            problem = str(condition.get("message", "pods cannot be made"))
    return Rollout(
        name=deployment["metadata"]["name"],
        desired=int(spec.get("replicas", 1)),
        updated=int(status.get("updatedReplicas", 0)),
        available=int(status.get("availableReplicas", 0)),
        num_gpus=gpus_of(spec["template"]["spec"]),
        problem=problem,
        observed=status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0),
    )


def ended_as(job: Object) -> str:
    """ "Complete" or "Failed"; empty while a Job has not ended."""
    for condition in job.get("status", {}).get("conditions", ()):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return str(condition["type"])
    return ""


def gpus_of(pod: Object) -> int:
    """GPUs that a pod's specification asks for."""
    containers = pod.get("containers", ())
    return sum(int(c.get("resources", {}).get("limits", {}).get(GPU, 0)) for c in containers)


def component_of(pod: Object) -> str:
    return str(pod["metadata"].get("labels", {}).get(COMPONENT, ""))


def _count_gpus(api: ClusterApi) -> int | None:
    try:
        nodes = api.list("/api/v1/nodes")
    except DndError:  # least rights: nodes belong to the cluster
        return None
    return sum(int(one["status"].get("allocatable", {}).get(GPU, 0)) for one in nodes)


def _is_of_keda(autoscaler: Object) -> bool:
    owners = autoscaler["metadata"].get("ownerReferences", ())
    return any(owner.get("kind") == "ScaledObject" for owner in owners)


def _read_backlog(api: ClusterApi) -> dict[str, float]:
    """From a coordinator's metrics, through the API server."""
    try:
        page = api.text(f"{api.root}/services/coordinator:metrics/proxy/metrics")
        families: Any = list(text_string_to_metric_families(page))
    except (DndError, ValueError):
        return {}
    return {
        sample.labels["stage"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "dnd_backlog_seconds"
    }
