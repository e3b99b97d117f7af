"""What is wrong with a deployment, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dnd.cluster.api import Object
from dnd.cluster.snapshot import PAUSED, Snapshot, component_of

_SECRET = re.compile(r'secret "?([a-z0-9.-]+)"? not found')
_BAD_IMAGE = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
EXPECTED = (
    *("activations", "captioner", "summarizer", "synthesizer", "scorer", "judge", "coordinator"),
    *("worker-index", "worker-exemplars", "worker-caption", "worker-summarize"),
    *("worker-synthesize", "worker-score"),
)
_BY_HAND = ("judge",)
"""What leaves its replicas to the operator: no stage asks it, so that no backlog is of it."""


@dataclass(frozen=True, order=True)
class Finding:
    """Something that is wrong.

    Attributes:
        where: The object.
        what: What is wrong with it.
        remedy: What to do.
    """

    where: str
    what: str
    remedy: str


def examine(snapshot: Snapshot) -> list[Finding]:
    """Everything that is found wrong, each thing once."""
    found = [
        *_missing(snapshot),
        *_gpus(snapshot),
        *_autoscaling(snapshot),
        *_claims(snapshot),
        *_jobs(snapshot),
        *(finding for pod in snapshot.pods for finding in _pod(pod)),
        *_mounts(snapshot),
        *(
            Finding(one.name, one.problem, "look at its pods: dnd cluster logs " + one.name)
            for one in snapshot.rollouts
            if one.problem
        ),
    ]
    return sorted(set(found))


def _missing(snapshot: Snapshot) -> Iterator[Finding]:
    there = {one.name for one in snapshot.rollouts}
    if lacking := [name for name in EXPECTED if name not in there]:
        yield Finding(
            "deployments",
            f"{', '.join(lacking)} not there",
            "dnd cluster apply deploy/k8s/overlays/NAME",
        )


def _gpus(snapshot: Snapshot) -> Iterator[Finding]:
    wanted = {one.name: one.num_gpus for one in snapshot.rollouts if one.num_gpus}
    if wanted and snapshot.gpus == 0:
        yield Finding(
            "nodes",
            f"no node offers nvidia.com/gpu, which {', '.join(sorted(wanted))} ask for",
            "install NVIDIA's device plugin, or add nodes with GPUs to the cluster",
        )


def _autoscaling(snapshot: Snapshot) -> Iterator[Finding]:
    ours = [
        one
        for one in snapshot.deployments
        if "replicas" not in _applied(one) and one["metadata"]["name"] not in _BY_HAND
    ]
    if ours and not snapshot.has_keda and not snapshot.hpas:
        yield Finding(
            "KEDA",
            "the cluster knows no ScaledObjects, and Deployments leave their replicas to them",
            "install KEDA, or use the component hpa",
        )
    for one in snapshot.scaled:
        name = f"scaledobject {one['metadata']['name']}"
        if PAUSED in one["metadata"].get("annotations", {}):
            yield Finding(name, "is paused", "dnd cluster pause-autoscaling --resume")
        for condition in one.get("status", {}).get("conditions", ()):
            if condition["type"] == "Ready" and condition["status"] == "False":
                yield Finding(
                    name,
                    str(condition.get("message", "is not ready")),
                    "can KEDA reach coordinator:9090? (network policy `backlog`)",
                )
    for one in snapshot.hpas:
        yield from _plain_autoscaler(one)


def _plain_autoscaler(autoscaler: Object) -> Iterator[Finding]:
    name = autoscaler["metadata"]["name"]
    for condition in autoscaler.get("status", {}).get("conditions", ()):
        if condition["type"] not in ("AbleToScale", "ScalingActive"):
            continue
        if condition["status"] != "False":
            continue
        yield Finding(
            f"horizontalpodautoscaler {name}",
            str(condition.get("message", "does not scale")),
            f"dnd cluster scale {name} 1"
            if condition.get("reason") == "ScalingDisabled"
            else "is dnd_backlog_seconds offered as an external metric? (docs/operations.md)",
        )


def _applied(deployment: Object) -> Object:
    """Fields of a Deployment's spec that `dnd cluster apply` manages; its own spec if unknown."""
    for entry in deployment["metadata"].get("managedFields", ()):
        if entry.get("manager") == "dnd":
            return {key.removeprefix("f:"): 1 for key in entry["fieldsV1"].get("f:spec", {})}
    found: Object = deployment["spec"]
    return found


def _claims(snapshot: Snapshot) -> Iterator[Finding]:
    for one in snapshot.claims:
        phase = one.get("status", {}).get("phase")
        if phase != "Bound":
            modes = ", ".join(one["spec"].get("accessModes", ()))
            yield Finding(
                f"persistentvolumeclaim {one['metadata']['name']}",
                f"is {phase or 'unknown'}",
                f"name a storage class that can do {modes} in your overlay",
            )


def _jobs(snapshot: Snapshot) -> Iterator[Finding]:
    for one in snapshot.jobs:
        for condition in one.get("status", {}).get("conditions", ()):
            if condition["type"] == "Failed" and condition["status"] == "True":
                name = one["metadata"]["name"]
                yield Finding(
                    f"job {name}",
                    str(condition.get("message", "has failed")),
                    f"dnd cluster logs {name}; delete the job and apply again",
                )


def _pod(pod: Object) -> Iterator[Finding]:
    name = component_of(pod) or str(pod["metadata"]["name"])
    status = pod.get("status", {})
    for condition in status.get("conditions", ()):
        if condition.get("reason") == "Unschedulable":
            yield Finding(
                name,
                f"is pending: {condition.get('message', 'no node fits')}",
                "add nodes of that kind, or ask for less in your overlay",
            )
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting", {})
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _BAD_IMAGE:
            yield Finding(
                name,
                f"its image {container['image']} cannot be pulled: {message or reason}",
                "push it, or set its name: kustomize edit set image",
            )
        elif reason == "CreateContainerConfigError":
            secret = _SECRET.search(message)
            remedy = (
                f"make the Secret {secret[1]} (docs/deploy.md)" if secret else "see the message"
            )
            yield Finding(name, message or reason, remedy)
        elif reason == "CrashLoopBackOff":
            last = container.get("lastState", {}).get("terminated", {})
            yield Finding(
                name,
                f"ends and is started again: exit status {last.get('exitCode')}, "
                f"{last.get('reason', 'unknown')}, {container.get('restartCount')} times",
                "more memory in your overlay"
                if last.get("reason") == "OOMKilled"
                else f"dnd cluster logs {name} --previous",
            )


def _mounts(snapshot: Snapshot) -> Iterator[Finding]:
    """Secrets that are mounted and missing are told by events alone."""
    pods = {one["metadata"]["name"]: component_of(one) for one in snapshot.pods}
    for event in snapshot.warnings:
        pod = event.get("involvedObject", {}).get("name", "")
        secret = _SECRET.search(event.get("message", ""))
        if event.get("reason") == "FailedMount" and secret and pod in pods:
            yield Finding(
                pods[pod] or pod,
                f"waits for the Secret {secret[1]}",
                f"make it, or look at cert-manager: kubectl describe certificate (docs/deploy.md): "
                f"{secret[1]}",
            )
