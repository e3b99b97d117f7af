"""What kustomize makes of deploy/k8s, and reading it."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy" / "k8s"
OVERLAYS = ("local-cpu", "gpu", "spot")
COMPONENT = "app.kubernetes.io/component"

Manifest = Mapping[str, Any]


@functools.cache
def build(folder: Path) -> tuple[Manifest, ...]:
    """The objects of an overlay. Skips the test where there is no kustomize."""
    if shutil.which("kustomize"):
        command = ["kustomize", "build", str(folder)]
    elif shutil.which("kubectl"):
        command = ["kubectl", "kustomize", str(folder)]
    else:
        pytest.skip("neither kustomize nor kubectl (1.21 or later) is installed; PyPI has neither")
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    # The loader in C takes a tenth of the time.
    return tuple(yaml.load_all(made.stdout, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def overlay(name: str) -> tuple[Manifest, ...]:
    """The objects of one of our overlays."""
    return build(DEPLOY / "overlays" / name)


def of_kind(objects: Sequence[Manifest], *kinds: str) -> list[Manifest]:
    return [one for one in objects if one["kind"] in kinds]


def names_of(objects: Sequence[Manifest], *kinds: str) -> set[str]:
    return {one["metadata"]["name"] for one in of_kind(objects, *kinds)}


@dataclass(frozen=True)
class Workload:
    """A Deployment, StatefulSet or Job, and the pod that it makes."""

    kind: str
    name: str
    manifest: Manifest

    @property
    def template(self) -> Manifest:
        found: Manifest = self.manifest["spec"]["template"]
        return found

    @property
    def pod(self) -> Manifest:
        found: Manifest = self.template["spec"]
        return found

    @property
    def labels(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.template["metadata"]["labels"]
        return found

    @property
    def main(self) -> Manifest:
        (container,) = self.pod["containers"]
        found: Manifest = container
        return found

    @property
    def ports(self) -> dict[str, int]:
        """Ports of the container by name."""
        return {port["name"]: port["containerPort"] for port in self.main.get("ports", [])}

    def mounts(self) -> dict[str, Manifest]:
        """Volumes by the folder where they are mounted."""
        volumes = {one["name"]: one for one in self.pod.get("volumes", [])}
        claims = self.manifest["spec"].get("volumeClaimTemplates", [])
        volumes |= {one["metadata"]["name"]: one for one in claims}
        return {m["mountPath"]: volumes[m["name"]] for m in self.main.get("volumeMounts", [])}


def workloads(objects: Sequence[Manifest]) -> list[Workload]:
    return [
        Workload(one["kind"], one["metadata"]["name"], one)
        for one in of_kind(objects, "Deployment", "StatefulSet", "Job")
    ]


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels. An empty one takes everything."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In", expression
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True


def selectors_in(value: Any) -> Iterator[Manifest]:
    """Every podSelector anywhere in a NetworkPolicy."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "podSelector":
                yield inner
            else:
                yield from selectors_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from selectors_in(inner)


def environment(objects: Sequence[Manifest], workload: Workload) -> dict[str, str | None]:
    """Variables of a container; None for what comes from a Secret."""
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(objects, "ConfigMap")}
    found: dict[str, str | None] = {}
    for source in workload.main.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]
    for entry in workload.main.get("env", []):
        found[entry["name"]] = entry.get("value")
    return found
