"""What every pod of every overlay keeps to."""

from __future__ import annotations

import pytest
from k8s.manifests import (
    COMPONENT,
    OVERLAYS,
    Workload,
    environment,
    names_of,
    of_kind,
    overlay,
    workloads,
)

CASES = [(name, one) for name in OVERLAYS for one in workloads(overlay(name))]
every_pod = pytest.mark.parametrize(
    ("name", "workload"), CASES, ids=[f"{name}-{one.name}" for name, one in CASES]
)


@every_pod
def test_pod_is_limited_and_unprivileged(name: str, workload: Workload) -> None:
    pod, main = workload.pod, workload.main
    for kind in ("requests", "limits"):
        assert {"cpu", "memory", "ephemeral-storage"} <= set(main["resources"][kind])
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert main["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["serviceAccountName"] in names_of(overlay(name), "ServiceAccount")
    assert pod["priorityClassName"] in names_of(overlay(name), "PriorityClass")
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    assert not [one for one in pod.get("volumes", []) if "hostPath" in one]
    assert "/tmp" in workload.mounts() or workload.name == "redis"


@every_pod
def test_pod_that_stays_is_probed_and_pinned(name: str, workload: Workload) -> None:
    image, _, tag = workload.main["image"].rpartition(":")
    assert image
    assert tag not in ("", "latest")
    if workload.kind == "Job":
        assert workload.pod["restartPolicy"] == "OnFailure"
        return
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(workload.main)
    assert workload.labels[COMPONENT] == workload.name


@pytest.mark.parametrize("name", OVERLAYS)
def test_model_servers_drain_within_their_grace(name: str) -> None:
    """Some seconds as "not serving" until callers have seen it, then DND_DRAIN_S."""
    for one in workloads(overlay(name)):
        if one.labels["dnd/kind"] not in ("server", "coordinator"):
            continue
        drain_s = float(environment(overlay(name), one)["DND_DRAIN_S"] or 0)
        assert drain_s + 5 < one.pod["terminationGracePeriodSeconds"], one.name


@pytest.mark.parametrize("name", ["gpu", "spot"])
def test_weights_come_by_the_job_alone_and_pods_read_them_offline(name: str) -> None:
    with_models = set()
    for one in workloads(overlay(name)):
        writes = one.name == "fetch-weights"
        offline = environment(overlay(name), one).get("HF_HUB_OFFLINE") == "1"
        assert offline or one.kind == "Job", one.name
        assert not (offline and writes)
        for mount in one.main.get("volumeMounts", []):
            if mount["mountPath"] == "/models":
                assert bool(mount.get("readOnly")) != writes
                with_models.add(one.name)
        model = environment(overlay(name), one).get("DND_MODEL") or "/models/"
        assert model.startswith(("/models/", "openai:")), one.name
    assert with_models >= {"fetch-weights", "captioner", "synthesizer", "scorer", "judge"}


@pytest.mark.parametrize("name", ["gpu", "spot"])
def test_gpu_pods_ask_for_one_and_are_not_started_ahead(name: str) -> None:
    with_gpu = {}
    for one in workloads(overlay(name)):
        resources = one.main["resources"]
        if "nvidia.com/gpu" in resources["limits"]:
            assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"]
            assert any(t["key"] == "nvidia.com/gpu" for t in one.pod["tolerations"])
            assert one.manifest["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
            assert one.mounts()["/dev/shm"]["emptyDir"]["medium"] == "Memory"
            with_gpu[one.name] = resources["limits"]["nvidia.com/gpu"]
    names = ("activations", "captioner", "synthesizer", "scorer", "judge")
    assert with_gpu == dict.fromkeys(names, "1")


@pytest.mark.parametrize("name", OVERLAYS)
def test_servers_have_disruption_budgets_and_spread(name: str) -> None:
    objects = overlay(name)
    for one in workloads(objects):
        if one.labels["dnd/kind"] in ("server", "coordinator"):
            assert one.name in names_of(objects, "PodDisruptionBudget")
            assert one.pod["topologySpreadConstraints"]
    (namespace,) = of_kind(objects, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    classes = {one["metadata"]["name"]: one["value"] for one in of_kind(objects, "PriorityClass")}
    assert classes["dnd-batch"] < classes["dnd-interactive"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_secrets_are_references_only(name: str) -> None:
    objects = overlay(name)
    assert not of_kind(objects, "Secret")
    made = {one["spec"]["secretName"] for one in of_kind(objects, "Certificate")}
    asked = set()
    for one in workloads(objects):
        asked |= {v["secret"]["secretName"] for v in one.pod.get("volumes", []) if "secret" in v}
        for entry in one.main.get("env", []):
            if "valueFrom" in entry:
                asked.add(entry["valueFrom"]["secretKeyRef"]["name"])
            is_secret = any(word in entry["name"] for word in ("PASSWORD", "SECRET", "TOKEN"))
            assert not is_secret or "valueFrom" in entry or entry["name"].endswith("_FILE")
    given = {"dnd-database", "dnd-redis", "dnd-admin"} | (
        {"dnd-llm", "dnd-s3"} if name != "local-cpu" else set()
    )
    assert asked == given | (made - {"authority-tls"})
