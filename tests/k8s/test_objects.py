"""Every overlay builds, and every object in it is one that the API server's schemas know."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
import yaml
from k8s.manifests import (
    DEPLOY,
    OVERLAYS,
    Manifest,
    build,
    environment,
    of_kind,
    overlay,
    selects,
    workloads,
)

VERSIONS = ("1.33", "1.37")
SCHEMAS = Path(__file__).parent / "schemas"


def schema_of(manifest: Manifest) -> dict[str, Any] | None:
    """Our schema of a custom resource: the fields that we use, and no others."""
    path = SCHEMAS / f"{manifest['kind'].lower()}.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def check(manifest: Manifest, version: str) -> None:
    schema = schema_of(manifest)
    if schema is not None:
        jsonschema.Draft202012Validator(schema).validate(manifest)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_is_valid(name: str, version: str) -> None:
    objects = overlay(name)
    for manifest in objects:
        check(manifest, version)
    assert len(objects) > 50


@pytest.mark.parametrize("base", ["", "overlays/local-cpu"])
def test_components_can_be_put_together_otherwise(tmp_path: Path, base: str) -> None:
    """A plain autoscaler in place of KEDA, a bucket on one machine, traces."""
    where = Path(os.path.relpath(DEPLOY, tmp_path.resolve()))
    components = ["hpa", "s3", "tracing"] + (
        ["tls", "network-policies", "postgres", "redis"] if not base else []
    )
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "dnd",
        "resources": [str(where / (base or "base"))],
        "components": [str(where / "components" / one) for one in components],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    objects = build(tmp_path)
    for manifest in objects:
        check(manifest, VERSIONS[-1])
    scaled = {
        one["spec"]["scaleTargetRef"]["name"] for one in of_kind(objects, "HorizontalPodAutoscaler")
    }
    deployments = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "Deployment")}
    assert scaled == set(deployments) - {"coordinator", "judge"}
    assert "replicas" not in deployments["judge"]
    assert not [name for name in scaled if "replicas" in deployments[name]]
    (way,) = [p for p in of_kind(objects, "NetworkPolicy") if "collector" in p["metadata"]["name"]]
    (rule,) = way["spec"]["egress"]
    namespace = rule["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    for one in workloads(objects):
        if one.labels["dnd/kind"] in ("server", "worker", "coordinator"):
            collector = urlsplit(environment(objects, one)["OTEL_EXPORTER_OTLP_ENDPOINT"] or "")
            assert str(collector.hostname).split(".")[1:] == [namespace, "svc"]
            assert [port["port"] for port in rule["ports"]] == [collector.port]
            assert selects(way["spec"]["podSelector"], one.labels), f"{one.name} has no way to it"
    assert "artifacts" not in {
        one["metadata"]["name"] for one in of_kind(objects, "PersistentVolumeClaim")
    }


def test_overlay_that_the_page_shows_builds_and_holds_what_it_sets(tmp_path: Path) -> None:
    page = (DEPLOY.parents[1] / "docs" / "deploy.md").read_text()
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    gpu = Path(os.path.relpath(DEPLOY / "overlays" / "gpu", tmp_path.resolve()))
    (tmp_path / "kustomization.yaml").write_text(shown.replace("../gpu", str(gpu)))
    files = ("models.yaml", "probes.yaml", "weights.yaml", "budgets.yaml")
    for name in files:
        (tmp_path / name).write_text(f"# mine: {name}")
    objects = build(tmp_path)
    for manifest in objects:
        check(manifest, VERSIONS[-1])
    found = {one.name: one for one in workloads(objects)}
    assert found["captioner"].main["image"] == f"registry.of.yours/dnd-captioner@sha256:{'0' * 64}"
    assert environment(objects, found["coordinator"])["DND_KEEP_DRAWINGS"] == "labels"
    (targets,) = [
        one for one in of_kind(objects, "ConfigMap") if "targets" in one["metadata"]["name"]
    ]
    assert targets["data"] == {name: f"# mine: {name}" for name in files}


def test_every_component_is_part_of_an_overlay_or_of_the_test_above() -> None:
    used = {"hpa", "tracing"}
    for name in OVERLAYS:
        file = DEPLOY / "overlays" / name / "kustomization.yaml"
        used |= {Path(one).name for one in yaml.safe_load(file.read_text()).get("components", [])}
    assert used == {one.name for one in (DEPLOY / "components").iterdir()}


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("ScaledObject", ("spec", "pollingInterval"), "15"),
        ("ScaledObject", ("spec", "minReplicas"), 1),
        ("Certificate", ("spec", "dnsNames"), "captioner"),
        ("PodMonitor", ("spec", "endpoints"), []),
    ],
)
def test_our_schemas_refuse_what_is_wrong(kind: str, path: tuple[str, ...], value: object) -> None:
    manifest = json.loads(json.dumps(of_kind(overlay("gpu"), kind)[0]))
    place = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        check(manifest, VERSIONS[-1])
