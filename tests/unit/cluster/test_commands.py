"""`dnd cluster` on a fake API server, spoken to by the real `kubernetes` client."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from fake_kubernetes import FakeCluster, healthy, serve
from k8s.manifests import DEPLOY, overlay
from k8s.test_objects import check

from dnd.cli import cluster_commands
from dnd.cli.app import app
from dnd.cluster import ClusterApi, examine, read_manifests, read_snapshot
from dnd.cluster.manifests import path_of
from dnd.cluster.snapshot import PAUSED
from dnd.errors import BadSetting, DndError, FailedPrecondition, Unavailable

APPS = "/apis/apps/v1/namespaces/dnd/deployments"
CORE = "/api/v1/namespaces/dnd"
JOBS = "/apis/batch/v1/namespaces/dnd/jobs"
HPAS = "/apis/autoscaling/v2/namespaces/dnd/horizontalpodautoscalers"
SCALED = "/apis/keda.sh/v1alpha1/namespaces/dnd/scaledobjects"
Dnd = Callable[..., Result]


@pytest.fixture
def cluster() -> FakeCluster:
    return healthy()


@pytest.fixture
def api(cluster: FakeCluster) -> Iterator[ClusterApi]:
    with serve(cluster) as api:
        yield api


@pytest.fixture
def dnd(api: ClusterApi, monkeypatch: pytest.MonkeyPatch) -> Dnd:
    """Runs `dnd cluster ...`; errors are in `exception`."""
    monkeypatch.setattr(ClusterApi, "connect", lambda namespace, context: api)
    monkeypatch.setattr(cluster_commands, "_LOOK_EVERY_S", 0.01)
    return lambda *words: CliRunner().invoke(app, ["cluster", *words])


def container(cluster: FakeCluster, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.objects[f"{CORE}/pods/{name}-7d4b9c6f5-x2x9p"]["status"]
    status: dict[str, Any] = found["containerStatuses"][0]
    return status


def test_status_shows_replicas_gpus_and_backlog(dnd: Dnd) -> None:
    shown = dnd("status").output
    assert re.search(r"synthesizer +1/1 +1 +ready", shown)
    assert re.search(r"summarizer +1/1 +ready", shown)
    assert (
        "Work that waits: synthesize 12 min 34 s" in shown
        or "Work that waits: synthesize 13 min" in shown
    )
    assert "wrong" not in shown
    assert dnd("doctor").output == "Nothing is wrong that can be seen from here.\n"


def test_status_says_so_when_something_is_wrong_or_unknown(cluster: FakeCluster, dnd: Dnd) -> None:
    cluster.texts.clear()
    cluster.objects[f"{APPS}/scorer"]["status"]["updatedReplicas"] = 0
    cluster.objects[f"{APPS}/captioner"]["spec"]["replicas"] = 0
    cluster.objects[f"{APPS}/captioner"]["status"] = {"observedGeneration": 3}
    container(cluster, "scorer")["state"] = {"waiting": {"reason": "ImagePullBackOff"}}
    outcome = dnd("status")
    assert "rolling out, 0 of 1 updated" in outcome.output
    assert "idle, scaled to zero" in outcome.output
    assert "no coordinator could be asked" in outcome.output
    assert "1 things are wrong: dnd cluster doctor" in outcome.output + outcome.stderr


def test_scale_and_pause_hold_replicas_until_resumed(cluster: FakeCluster, dnd: Dnd) -> None:
    assert "its autoscaler is paused" in dnd("scale", "synthesizer", "4").output
    annotations = cluster.objects[f"{SCALED}/synthesizer"]["metadata"]["annotations"]
    assert annotations == {PAUSED: "4"}
    assert dnd("scale", "scorer", "2").output == "scorer: 2 replicas.\n"  # no ScaledObject
    assert cluster.objects[f"{APPS}/scorer"]["spec"]["replicas"] == 2
    assert "2 autoscalers: replicas are held at 1" in dnd("pause-autoscaling").output
    assert cluster.objects[f"{SCALED}/worker-synthesize"]["metadata"]["annotations"] == {
        PAUSED: "1"
    }
    assert "is paused" in dnd("doctor").output
    assert "decided by KEDA again" in dnd("pause-autoscaling", "--resume").output
    assert annotations == {}
    error = dnd("scale", "scorrer", "2").exception
    assert isinstance(error, DndError)
    assert "scorer" in error.message


def test_wait_returns_once_all_are_ready_and_gives_up_by_name(
    cluster: FakeCluster, dnd: Dnd
) -> None:
    assert dnd("wait").output == "13 Deployments are ready.\n"
    status = cluster.objects[f"{APPS}/scorer"]["status"]
    status["observedGeneration"] = 2  # the newest version has not been seen yet
    error = dnd("wait", "--timeout", "0").exception
    assert isinstance(error, DndError)
    assert "scorer is not ready" in error.message
    status["conditions"][1] = {
        "type": "Progressing",
        "status": "False",
        "reason": "ProgressDeadlineExceeded",
    }
    error = dnd("wait").exception
    assert isinstance(error, FailedPrecondition)
    assert "scorer: the rollout got nowhere in its time" in error.message


def test_wait_is_for_jobs_too(cluster: FakeCluster, dnd: Dnd) -> None:
    """They bring weights and probe images, without which there are no labels."""
    job: dict[str, Any] = {"metadata": {"name": "fetch-weights"}, "status": {"active": 1}}
    cluster.put(JOBS, job)
    error = dnd("wait", "--timeout", "0").exception
    assert isinstance(error, DndError)
    assert "job fetch-weights is not ready" in error.message
    job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    assert dnd("wait").exit_code == 0
    job["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
    error = dnd("wait").exception
    assert isinstance(error, FailedPrecondition)
    assert "job fetch-weights has failed" in error.message


def test_logs_are_of_all_pods_of_a_name(cluster: FakeCluster, dnd: Dnd) -> None:
    cluster.texts[f"{CORE}/pods/scorer-7d4b9c6f5-x2x9p/log"] = "serving on 0.0.0.0:7000\n"
    assert dnd("logs", "scorer").output == "== scorer-7d4b9c6f5-x2x9p\nserving on 0.0.0.0:7000\n"
    error = dnd("logs", "nobody").exception
    assert isinstance(error, DndError)
    assert "No pod of nobody" in error.message


@pytest.mark.parametrize(
    ("state", "last", "message", "remedy"),
    [
        (
            {"reason": "ErrImagePull", "message": "manifest unknown"},
            {},
            "cannot be pulled: manifest unknown",
            "edit set image",
        ),
        (
            {"reason": "CreateContainerConfigError", "message": 'secret "dnd-redis" not found'},
            {},
            'secret "dnd-redis" not found',
            "make the Secret dnd-redis",
        ),
        (
            {"reason": "CrashLoopBackOff"},
            {"terminated": {"exitCode": 2, "reason": "Error"}},
            "exit status 2, Error",
            "dnd cluster logs captioner --previous",
        ),
        (
            {"reason": "CrashLoopBackOff"},
            {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            "exit status 137, OOMKilled",
            "more memory",
        ),
    ],
    ids=["image", "secret", "crash", "memory"],
)
def test_doctor_finds_what_keeps_a_container_from_running(
    cluster: FakeCluster,
    api: ClusterApi,
    state: dict[str, str],
    last: dict[str, object],
    message: str,
    remedy: str,
) -> None:
    container(cluster, "captioner").update(state={"waiting": state}, lastState=last)
    (finding,) = examine(read_snapshot(api))
    assert finding.where == "captioner"
    assert message in finding.what
    assert remedy in finding.remedy


def test_doctor_finds_what_the_cluster_lacks(cluster: FakeCluster, api: ClusterApi) -> None:
    for node in ("node-a", "node-b"):
        del cluster.objects[f"/api/v1/nodes/{node}"]["status"]["allocatable"]["nvidia.com/gpu"]
    cluster.objects[f"{CORE}/persistentvolumeclaims/models"]["status"]["phase"] = "Pending"
    pending = cluster.objects[f"{CORE}/pods/scorer-7d4b9c6f5-x2x9p"]["status"]
    pending |= {
        "phase": "Pending",
        "containerStatuses": [],
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
            }
        ],
    }
    event = {
        "metadata": {"name": "captioner.1"},
        "type": "Warning",
        "reason": "FailedMount",
        "message": 'MountVolume.SetUp failed for volume "tls" : secret "captioner-tls" not found',
        "involvedObject": {"kind": "Pod", "name": "captioner-7d4b9c6f5-x2x9p"},
    }
    cluster.put(f"{CORE}/events", event)
    failed = {"type": "Failed", "status": "True", "message": "Job has reached its backoff limit"}
    job = {"metadata": {"name": "fetch-weights"}, "status": {"conditions": [failed]}}
    cluster.put(JOBS, job)
    del cluster.objects[f"{APPS}/worker-index"]
    found = {finding.where: finding for finding in examine(read_snapshot(api))}
    assert "no node offers nvidia.com/gpu" in found["nodes"].what
    assert "device plugin" in found["nodes"].remedy
    assert found["persistentvolumeclaim models"].what == "is Pending"
    assert "Insufficient nvidia.com/gpu" in found["scorer"].what
    assert "waits for the Secret captioner-tls" in found["captioner"].what
    assert "backoff limit" in found["job fetch-weights"].what
    assert "worker-index not there" in found["deployments"].what
    assert len(found) == 6


def test_doctor_finds_that_keda_is_missing_or_blind(cluster: FakeCluster, api: ClusterApi) -> None:
    managed = {"manager": "dnd", "fieldsV1": {"f:spec": {"f:template": {}}}}  # not the replicas
    cluster.objects[f"{APPS}/synthesizer"]["metadata"]["managedFields"] = [managed]
    assert examine(read_snapshot(api)) == []
    conditions = cluster.objects[f"{SCALED}/synthesizer"]["status"]["conditions"]
    conditions[0] |= {
        "status": "False",
        "message": "Triggers defined in ScaledObject are not working",
    }
    (finding,) = examine(read_snapshot(api))
    assert (finding.where, "not working" in finding.what) == ("scaledobject synthesizer", True)
    cluster.unknown = ("/apis/keda.sh",)
    (finding,) = examine(read_snapshot(api))
    assert finding.where == "KEDA"


def autoscaler(name: str, type_: str, reason: str) -> dict[str, Any]:
    """A HorizontalPodAutoscaler one of whose conditions does not hold."""
    condition = {"type": type_, "status": "False", "reason": reason, "message": f"{reason}: why"}
    return {"metadata": {"name": name}, "status": {"conditions": [condition]}}


def test_plain_autoscalers_are_no_lack_of_keda_and_are_looked_at(
    cluster: FakeCluster, api: ClusterApi, dnd: Dnd
) -> None:
    managed = {"manager": "dnd", "fieldsV1": {"f:spec": {"f:template": {}}}}  # not the replicas
    cluster.objects[f"{APPS}/synthesizer"]["metadata"]["managedFields"] = [managed]
    cluster.unknown = ("/apis/keda.sh",)
    cluster.put(HPAS, autoscaler("synthesizer", "ScalingLimited", "DesiredWithinRange"))
    assert examine(read_snapshot(api)) == []
    cluster.put(HPAS, autoscaler("synthesizer", "ScalingActive", "FailedGetExternalMetric"))
    cluster.put(HPAS, autoscaler("scorer", "ScalingActive", "ScalingDisabled"))
    scorer, synthesizer = examine(read_snapshot(api))
    assert "FailedGetExternalMetric" in synthesizer.what
    assert "offered as an external metric" in synthesizer.remedy
    assert (scorer.where, scorer.remedy) == (
        "horizontalpodautoscaler scorer",
        "dnd cluster scale scorer 1",
    )
    assert "until its autoscaler decides otherwise" in dnd("scale", "scorer", "2").output
    assert "rests until it is scaled up" in dnd("scale", "scorer", "0").output
    assert cluster.objects[f"{APPS}/scorer"]["spec"]["replicas"] == 0
    assert dnd("scale", "captioner", "2").output == "captioner: 2 replicas.\n"  # no autoscaler
    assert "KEDA scales nothing" in str(dnd("pause-autoscaling").exception)


def test_autoscalers_that_keda_has_made_are_its_own_affair(
    cluster: FakeCluster, api: ClusterApi
) -> None:
    owner = [{"kind": "ScaledObject", "name": "synthesizer"}]
    made = autoscaler("keda-hpa-synthesizer", "ScalingActive", "ScalingDisabled")
    made["metadata"]["ownerReferences"] = owner
    cluster.put(HPAS, made)
    assert examine(read_snapshot(api)) == []


def test_doctor_knows_that_the_judges_replicas_are_the_operators(
    cluster: FakeCluster, api: ClusterApi, dnd: Dnd
) -> None:
    managed = {"manager": "dnd", "fieldsV1": {"f:spec": {"f:template": {}}}}
    judge = cluster.objects[f"{APPS}/judge"]
    judge["metadata"]["managedFields"] = [managed]
    cluster.unknown = ("/apis/keda.sh",)
    assert examine(read_snapshot(api)) == []
    assert dnd("scale", "judge", "0").output == "judge: 0 replicas.\n"
    assert judge["spec"]["replicas"] == 0
    del cluster.objects[f"{APPS}/judge"]
    (finding,) = examine(read_snapshot(api))
    assert finding.what == "judge not there"


def test_nodes_may_be_out_of_sight(cluster: FakeCluster, api: ClusterApi) -> None:
    cluster.forbidden = ("/api/v1/nodes",)
    assert read_snapshot(api).gpus is None
    cluster.forbidden = ("/apis/apps",)
    with pytest.raises(BadSetting, match="operator-rbac has the rights"):
        read_snapshot(api)


def test_apply_sends_valid_objects_in_an_order_that_works(
    cluster: FakeCluster, dnd: Dnd, tmp_path: Path
) -> None:
    file = tmp_path / "all.yaml"
    file.write_text("\n---\n".join(json.dumps(one) for one in overlay("gpu")))
    outcome = dnd("apply", str(file))
    assert outcome.exit_code == 0, outcome.exception
    sent = [body for method, _, body in cluster.asked if method == "PATCH"]
    for manifest in sent:
        check(manifest, "1.37")
    kinds = [one["kind"] for one in sent]
    assert kinds[0] == "Namespace"
    assert max(i for i, k in enumerate(kinds) if k == "ConfigMap") < kinds.index("Deployment")
    assert len(sent) == len(overlay("gpu"))
    assert f"{len(sent)} objects applied" in outcome.output
    num_objects = len(cluster.objects)
    assert dnd("apply", str(file)).exit_code == 0
    assert len(cluster.objects) == num_objects


def test_what_scale_and_pause_change_stays_valid(cluster: FakeCluster, dnd: Dnd) -> None:
    for one in overlay("gpu"):
        if one["kind"] == "ScaledObject":
            cluster.put(SCALED, json.loads(json.dumps(one)))
    assert dnd("pause-autoscaling", "--replicas", "0").exit_code == 0
    assert dnd("scale", "synthesizer", "4").exit_code == 0
    paused = [one for path, one in cluster.objects.items() if path.startswith(SCALED)]
    assert len(paused) == 11
    for scaled in paused:
        assert scaled["metadata"]["annotations"][PAUSED] in ("0", "4")
        check(scaled, "1.37")
    assert dnd("scale", "judge", "2").exit_code == 0
    (change,) = [body for _, path, body in cluster.asked if path == f"{APPS}/judge/scale"]
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "judge"}}
    check(scale | change, "1.37")


def test_apply_sends_nothing_to_a_cluster_that_lacks_an_operator(
    cluster: FakeCluster, dnd: Dnd, tmp_path: Path
) -> None:
    file = tmp_path / "all.yaml"
    file.write_text("\n---\n".join(json.dumps(one) for one in overlay("gpu")))
    for group, lacking in (
        ("cert-manager.io", "no Certificate and no Issuer: install cert-manager"),
        ("keda.sh", "no ScaledObject: install KEDA"),
        ("monitoring.coreos.com", "no PodMonitor and no PrometheusRule: install the Prometheus"),
    ):
        cluster.unknown = (f"/apis/{group}",)
        error = dnd("apply", str(file)).exception
        assert isinstance(error, FailedPrecondition)
        assert lacking in error.message
    assert not [method for method, _, _ in cluster.asked if method == "PATCH"]


def test_apply_names_a_conflict_and_takes_over_with_force(
    cluster: FakeCluster, dnd: Dnd, tmp_path: Path
) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "common"}, "data": {}}
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump(config))
    cluster.managers[f"{CORE}/configmaps/common"] = "kubectl-edit"
    error = dnd("apply", str(file)).exception
    assert isinstance(error, FailedPrecondition)
    assert 'conflict with "kubectl-edit"' in error.message
    assert "--force" in error.message
    assert dnd("apply", str(file), "--force").exit_code == 0


def test_apply_makes_an_ended_job_anew_and_leaves_a_running_one(
    cluster: FakeCluster, dnd: Dnd, tmp_path: Path
) -> None:
    job: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "migrate"},
        "spec": {"template": {"image": "dnd-coordinator:0.1.0"}},
    }
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    assert dnd("apply", str(file)).exit_code == 0
    job["spec"]["template"]["image"] = "dnd-coordinator:0.2.0"
    file.write_text(yaml.safe_dump(job))
    error = dnd("apply", str(file)).exception
    assert isinstance(error, FailedPrecondition)
    assert "immutable" in error.message
    path = path_of(job, "dnd")
    cluster.objects[path]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    assert dnd("apply", str(file)).exit_code == 0
    assert cluster.objects[path]["spec"] == job["spec"]


def test_manifests_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="cannot be read"):
        read_manifests(tmp_path / "nothing.yaml")
    (tmp_path / "pod.yaml").write_text("kind: Pod\nmetadata: {name: a}\n")
    with pytest.raises(BadSetting, match="kind = 'Pod'"):
        read_manifests(tmp_path / "pod.yaml")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(BadSetting, match="kind = 'list'"):
        read_manifests(tmp_path / "list.yaml")


def test_every_kind_of_the_overlays_can_be_applied() -> None:
    overlay("local-cpu")  # skips where nothing builds it
    assert len(read_manifests(DEPLOY / "overlays" / "local-cpu")) == len(overlay("local-cpu"))


def test_operators_role_allows_what_the_commands_ask_and_no_more(
    cluster: FakeCluster, dnd: Dnd
) -> None:
    """Of the commands that look and scale; whoever applies makes all of it."""
    cluster.texts[f"{CORE}/pods/scorer-7d4b9c6f5-x2x9p/log"] = ""
    for words in (
        ("status",),
        ("doctor",),
        ("wait",),
        ("logs", "scorer"),
        ("scale", "scorer", "1"),
        ("scale", "synthesizer", "1"),
        ("pause-autoscaling", "--resume"),
    ):
        assert dnd(*words).exit_code == 0, words
    asked = {right_of(method, path) for method, path, _ in cluster.asked}
    asked.discard(None)
    rules = yaml.safe_load_all((DEPLOY / "components/operator-rbac/roles.yaml").read_text())
    granted = {
        (group, resource, verb)
        for role in rules
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert asked == granted


def right_of(method: str, path: str) -> tuple[str, str, str] | None:
    """(API group, resource, verb) that a call takes; None for what everybody may look at."""
    core = re.fullmatch(r"/api/v1(?:/namespaces/\w+)?/(\w+)(?:/([^/]+))?(?:/(\w+).*)?", path)
    other = re.fullmatch(
        r"/apis/([^/]+)/\w+(?:/namespaces/\w+)?/(\w+)(?:/([^/]+))?(?:/(\w+))?", path
    )
    if core:
        group, resource, name, inner = "", core[1], core[2], core[3]
    elif other:
        group, resource, name, inner = other[1], other[2], other[3], other[4]
    else:
        return None  # which kinds there are
    verb = "patch" if method == "PATCH" else "get" if name else "list"
    return group, f"{resource}/{inner}" if inner else resource, verb


def test_cluster_that_does_not_answer_is_named(cluster: FakeCluster) -> None:
    with serve(cluster) as api:
        pass
    with pytest.raises(Unavailable, match="The cluster does not answer"):
        api.list(APPS)
