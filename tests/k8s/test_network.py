"""Who may call whom, and by which name: as the code does it, and no more."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from k8s.manifests import (
    DEPLOY,
    OVERLAYS,
    Manifest,
    Workload,
    environment,
    names_of,
    of_kind,
    overlay,
    selectors_in,
    selects,
    workloads,
)

import dnd
from dnd.clients import JUDGE, SERVICE_NAMES
from dnd.jobs import STAGES
from dnd.stack.config import WORKERS
from dnd_services.coordinator import compare, dissections, handlers

Edge = tuple[str, str]
SERVERS = (*SERVICE_NAMES, JUDGE)
_SECRET_TARGETS = {"DND_DATABASE": ("postgres", 5432), "DND_REDIS": ("redis", 6379)}


@functools.cache
def functions_of_the_method() -> dict[str, list[ast.AST]]:
    """Functions by name: of the modules of `dnd` that ask services, and of a worker's handlers.

    Functions inside of others are part of those: their names mean nothing elsewhere.
    """
    files = [
        path for path in Path(dnd.__file__).parent.glob("*.py") if "services." in path.read_text()
    ]
    files += [Path(str(module.__file__)) for module in (handlers, compare, dissections)]
    bodies: dict[str, list[ast.AST]] = {}
    for file in files:
        module = ast.parse(file.read_text())
        classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
        for node in (*module.body, *(one for cls in classes for one in cls.body)):
            if isinstance(node, ast.FunctionDef):
                bodies.setdefault(node.name, []).append(node)
    return bodies


def services_called(function: str) -> set[str]:
    """The stage services that a function calls, itself or through others."""
    bodies = functions_of_the_method()
    called: set[str] = set()
    seen: set[str] = set()
    waiting = [function]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for body in bodies.get(name, []):
            for node in ast.walk(body):
                if isinstance(node, ast.Attribute):
                    of_services = isinstance(node.value, ast.Name) and node.value.id == "services"
                    if of_services and node.attr in SERVICE_NAMES:
                        called.add(node.attr)
                    if not is_of_profile(node):
                        waiting.append(node.attr)
                elif isinstance(node, ast.Name):
                    waiting.append(node.id)
    return called


def is_of_profile(node: ast.Attribute) -> bool:
    """Whether it is a section of settings, `profile.dissect`: no function of that name."""
    owner = node.value
    return (isinstance(owner, ast.Attribute) and owner.attr == "profile") or (
        isinstance(owner, ast.Name) and owner.id == "profile"
    )


def edges_of_the_code() -> set[Edge]:
    """Callers and services: workers by what their stages do, the coordinator calls all."""
    edges = {("coordinator", service) for service in SERVERS}
    for worker, of_worker in WORKERS.items():
        for stage in of_worker:
            for function in functions_of(stage):
                edges |= {(f"worker-{worker}", one) for one in services_called(function)}
    return edges


def functions_of(stage: str) -> Iterator[str]:
    """What a worker runs for a stage: its handlers, and the comparison after the last score."""
    for (of_stage, _), handler in handlers._HANDLERS.items():
        if of_stage == stage:
            yield handler.__name__
    if stage == "score":
        yield compare.compare_layer.__name__


def matching(objects: Sequence[Manifest], selector: Manifest) -> list[Workload]:
    return [one for one in workloads(objects) if selects(selector, one.labels)]


def edges_of_policies(objects: Sequence[Manifest], direction: str) -> set[tuple[str, str, int]]:
    """(caller, called, port) that the policies of one direction allow inside the namespace."""
    found = set()
    for policy in of_kind(objects, "NetworkPolicy"):
        spec = policy["spec"]
        if direction not in spec["policyTypes"]:
            continue
        for rule in spec.get(direction.lower(), []) or []:
            peers = rule["from" if direction == "Ingress" else "to"]
            for peer in peers:
                if "podSelector" not in peer or "namespaceSelector" in peer:
                    continue
                for own in matching(objects, spec["podSelector"]):
                    for other in matching(objects, peer["podSelector"]):
                        caller, called = (other, own) if direction == "Ingress" else (own, other)
                        for port in rule["ports"]:
                            number = port["port"]
                            if isinstance(number, str):
                                number = called.ports[number]
                            found.add((caller.name, called.name, number))
    return found


@pytest.mark.parametrize("name", OVERLAYS)
def test_policies_allow_the_calls_of_the_code_and_no_others(name: str) -> None:
    objects = overlay(name)
    expected = {(caller, called, 7000) for caller, called in edges_of_the_code()}
    stores = names_of(objects, "StatefulSet")
    assert stores == ({"postgres", "redis"} if name == "local-cpu" else set())
    for one in workloads(objects):
        environ = environment(objects, one)
        for variable, (store, port) in _SECRET_TARGETS.items():
            if variable in environ and store in stores:
                expected.add((one.name, store, port))
    assert edges_of_policies(objects, "Ingress") == expected
    assert edges_of_policies(objects, "Egress") == expected
    assert len(expected) >= 14


def edges_between_namespaces(objects: Sequence[Manifest]) -> set[tuple[str, str, int]]:
    """(caller, called, port) where one of both is a namespace, by its label's value."""
    found = set()
    for policy in of_kind(objects, "NetworkPolicy"):
        spec = policy["spec"]
        own = matching(objects, spec["podSelector"])
        for direction, peers_of in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, []) or []:
                for peer in rule[peers_of]:
                    if "namespaceSelector" not in peer:
                        continue
                    ((label, value),) = peer["namespaceSelector"]["matchLabels"].items()
                    other = value if label == "kubernetes.io/metadata.name" else f"{label}={value}"
                    for one in own:
                        for port in rule["ports"]:
                            number = port["port"]
                            if direction == "ingress":
                                found.add((other, one.name, one.ports[number]))
                            else:
                                found.add((one.name, other, number))
    return found


@pytest.mark.parametrize("name", OVERLAYS)
def test_other_namespaces_reach_the_api_and_metrics_and_nothing_else(name: str) -> None:
    objects = overlay(name)
    expected = {(one.name, "kube-system", 53) for one in workloads(objects)}
    expected |= {("dnd/client=true", "coordinator", port) for port in (7000, 8080)}
    if name != "local-cpu":
        expected.add(("keda", "coordinator", 9090))
        expected |= {
            ("monitoring", one.name, 9090)
            for one in workloads(objects)
            if one.labels["dnd/kind"] in ("server", "worker", "coordinator")
        }
    assert edges_between_namespaces(objects) == expected


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_is_not_named_is_denied(name: str) -> None:
    policies = {
        one["metadata"]["name"]: one["spec"] for one in of_kind(overlay(name), "NetworkPolicy")
    }
    deny = policies["default-deny"]
    assert deny["podSelector"] == {}
    assert set(deny["policyTypes"]) == {"Ingress", "Egress"}
    assert not {"ingress", "egress"} & set(deny)
    for selector in (s for one in policies.values() for s in selectors_in(one)):
        if "k8s-app" not in selector.get("matchLabels", {}):
            assert matching(overlay(name), selector), selector


@pytest.mark.parametrize("name", OVERLAYS)
def test_only_what_must_leaves_the_cluster(name: str) -> None:
    """The summarizer for its language model, the Job for weights; and artifacts in a bucket."""
    objects = overlay(name)
    leaving = set()
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in policy["spec"].get("egress", []) or []:
            for block in (to["ipBlock"] for to in rule["to"] if "ipBlock" in to):
                if block["cidr"] == "0.0.0.0/0":
                    assert "169.254.0.0/16" in block["except"]
                    leaving |= {
                        one.name for one in matching(objects, policy["spec"]["podSelector"])
                    }
    if name == "local-cpu":
        assert leaving == set()
        return
    with_bucket = {
        one.name for one in workloads(objects) if "AWS_REGION" in environment(objects, one)
    }
    assert leaving == with_bucket | {"summarizer", "fetch-weights"}
    assert "summarizer" not in with_bucket


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_target_is_a_service_with_that_port(name: str) -> None:
    objects = overlay(name)
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "Service")}
    num_checked = 0
    for one in workloads(objects):
        for variable, value in environment(objects, one).items():
            target = re.fullmatch(r"dns:([a-z]+):(\d+)", value or "")
            if target is None:
                assert not (value or "").startswith("dns:"), (variable, value)
                continue
            service = services[target[1]]
            assert service["clusterIP"] == "None", "callers choose among all replicas"
            assert int(target[2]) in {port["port"] for port in service["ports"]}
            num_checked += 1
    # The coordinator and six workers; the judge is asked by the coordinator alone.
    assert num_checked == 7 * len(SERVICE_NAMES) + 1
    for service_name, service in services.items():
        (backend,) = [
            one
            for one in workloads(objects)
            if selects({"matchLabels": service["selector"]}, one.labels)
        ]
        assert backend.name == service_name
        for port in service["ports"]:
            assert backend.ports[port["targetPort"]] == port["port"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_certificates_carry_the_names_that_callers_use(name: str) -> None:
    objects = overlay(name)
    names = {
        one["spec"]["secretName"]: one["spec"].get("dnsNames", [])
        for one in of_kind(objects, "Certificate")
    }
    for service in SERVERS:
        assert {service, f"{service}.dnd.svc"} <= set(names[f"{service}-tls"])
    assert "coordinator.dnd.svc" in names["coordinator-tls"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_probes_and_monitors_ask_ports_that_exist(name: str) -> None:
    objects = overlay(name)
    for one in workloads(objects):
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = one.main.get(kind, {})
            if "grpc" in probe:
                assert (
                    probe["grpc"]["port"]
                    == one.ports["health"]
                    == int(environment(objects, one)["DND_HEALTH_PORT"] or 0)
                )
            for way in ("httpGet", "tcpSocket"):
                assert way not in probe or probe[way]["port"] in one.ports
        if one.labels["dnd/kind"] in ("server", "coordinator", "worker"):
            assert one.ports["metrics"] == int(environment(objects, one)["DND_METRICS_PORT"] or 0)
    for monitor in of_kind(objects, "PodMonitor"):
        watched = matching(objects, monitor["spec"]["selector"])
        assert len(watched) == 13
        assert all("metrics" in one.ports for one in watched)


@pytest.mark.parametrize("name", ["gpu", "spot"])
def test_autoscalers_watch_the_stages_of_what_they_scale(name: str) -> None:
    objects = overlay(name)
    calls = edges_of_the_code()
    by_worker = {f"worker-{worker}": set(of) for worker, of in WORKERS.items()}
    scaled = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "ScaledObject")}
    assert set(scaled) == set(SERVICE_NAMES) | set(by_worker)
    for target, spec in scaled.items():
        assert spec["scaleTargetRef"]["name"] == target
        watched = set()
        for trigger in spec["triggers"]:
            place = re.fullmatch(
                r'dnd_backlog_seconds\{stage="(\w+)"\}', trigger["metadata"]["valueLocation"]
            )
            assert place is not None
            assert place[1] in STAGES
            assert trigger["metadata"]["url"] == "http://coordinator.dnd.svc:9090/metrics"
            watched.add(place[1])
        if target in by_worker:
            assert watched == by_worker[target]
            continue
        stages_called = {
            stage
            for stage in STAGES
            for worker, of_worker in by_worker.items()
            if stage in of_worker and (worker, target) in calls and target in stage_services(stage)
        }
        assert watched == stages_called


def test_plain_autoscalers_decide_by_what_keda_decides_by() -> None:
    """The external metric of the component hpa is the value that the component keda reads."""
    components = DEPLOY / "components"
    keda = list(yaml.safe_load_all((components / "keda" / "scaled-objects.yaml").read_text()))
    plain = list(yaml.safe_load_all((components / "hpa" / "autoscalers.yaml").read_text()))
    by_name = {one["metadata"]["name"]: one["spec"] for one in plain}
    assert set(by_name) == {one["metadata"]["name"] for one in keda}
    for one in keda:
        spec, hpa = one["spec"], by_name[one["metadata"]["name"]]
        assert hpa["scaleTargetRef"]["name"] == spec["scaleTargetRef"]["name"]
        assert hpa["minReplicas"] == 1, "an autoscaler without KEDA does not scale to zero"
        assert hpa["maxReplicas"] == spec["maxReplicaCount"]
        assert hpa["behavior"] == spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert [read_external(metric) for metric in hpa["metrics"]] == [
            (t["metadata"]["valueLocation"], t["metadata"]["targetValue"]) for t in spec["triggers"]
        ]


def read_external(metric: Manifest) -> tuple[str, str]:
    """The series and the target of an external metric."""
    external = metric["external"]
    ((label, value),) = external["metric"]["selector"]["matchLabels"].items()
    assert external["target"]["type"] == "AverageValue"
    series = f'{external["metric"]["name"]}{{{label}="{value}"}}'
    return series, external["target"]["averageValue"]


def stage_services(stage: str) -> set[str]:
    """The services that one stage calls."""
    return {one for function in functions_of(stage) for one in services_called(function)}
