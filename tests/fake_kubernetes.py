"""An API server of Kubernetes with objects in memory, for the real `kubernetes` client over HTTP.

Objects have the fields of real answers as the API reference documents them. It knows GET, LIST,
merge patches, server-side apply with field managers for whole objects, and DELETE; it validates
nothing.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes

from dnd.cluster import ClusterApi

NAMED = re.compile(r"(?P<list>.*/(?P<plural>[a-z]+))/(?P<name>[^/]+)")


@dataclass
class FakeCluster:
    """Objects by path, and what was asked.

    Attributes:
        objects: By the path of each.
        texts: Pages of text by path: logs, metrics.
        managers: Who applied an object last, by path.
        unknown: Paths below which the cluster knows no kinds.
        forbidden: Paths that may not be looked at.
        asked: Method, path and body of every call.
    """

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    managers: dict[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    asked: list[tuple[str, str, Any]] = field(default_factory=list)

    def put(self, path: str, found: dict[str, Any]) -> None:
        """Adds an object to the list at `path`."""
        self.objects[f"{path}/{found['metadata']['name']}"] = found

    def answer(self, method: str, url: str, body: str) -> tuple[int, Any]:
        parts = urlsplit(url)
        path, query = parts.path, {key: one[0] for key, one in parse_qs(parts.query).items()}
        self.asked.append((method, path, json.loads(body) if body else None))
        if path.startswith(self.forbidden) and self.forbidden:
            return 403, _status("Forbidden", f"cannot {method} {path}")
        if path in self.texts:
            return 200, self.texts[path]
        if self.unknown and path.startswith(self.unknown):
            return 404, _status("NotFound", "the server could not find the requested resource")
        if method == "GET":
            return self._get(path)
        if method == "DELETE":
            return (200, self.objects.pop(path)) if path in self.objects else self._get(path)
        if query.get("fieldManager"):
            return self._apply(path, json.loads(body), query)
        return self._merge(path.removesuffix("/scale"), json.loads(body))

    def _get(self, path: str) -> tuple[int, Any]:
        if path in self.objects:
            return 200, self.objects[path]
        inside = [o for p, o in self.objects.items() if p.rpartition("/")[0] == path]
        last = path.rpartition("/")[2]
        if inside or last in ("deployments", "pods", "persistentvolumeclaims", "jobs", "events"):
            return 200, {"kind": "List", "items": inside}
        if last in ("scaledobjects", "horizontalpodautoscalers", "nodes"):
            return 200, {"kind": "List", "items": inside}
        if re.fullmatch(r"/apis/[^/]+/v\w+", path):
            return 200, {"kind": "APIResourceList"}
        return 404, _status("NotFound", f'"{last}" not found')

    def _merge(self, path: str, change: dict[str, Any]) -> tuple[int, Any]:
        if path not in self.objects:
            return 404, _status("NotFound", f"{path} not found")
        _merge_into(self.objects[path], change)
        return 200, self.objects[path]

    def _apply(self, path: str, manifest: dict[str, Any], query: dict[str, str]) -> tuple[int, Any]:
        manager = self.managers.get(path, query["fieldManager"])
        before = self.objects.get(path)
        if manager != query["fieldManager"] and query.get("force") != "true":
            cause = {"reason": "FieldManagerConflict", "message": f'conflict with "{manager}"'}
            message = f'Apply failed with 1 conflict: conflict with "{manager}"'
            return 409, _status("Conflict", message) | {"details": {"causes": [cause]}}
        if before and manifest["kind"] == "Job" and before["spec"] != manifest["spec"]:
            return 422, _status("Invalid", "spec.template: field is immutable")
        self.managers[path] = query["fieldManager"]
        self.objects[path] = {**(before or {}), **manifest}
        return 200, manifest


def _status(reason: str, message: str) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "reason": reason, "message": message}


def _merge_into(target: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            _merge_into(target.setdefault(key, {}), value)
        else:
            target[key] = value


@contextmanager
def serve(cluster: FakeCluster) -> Iterator[ClusterApi]:
    """The cluster behind a real client, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            status, found = cluster.answer(self.command, self.path, body)
            data = (found if isinstance(found, str) else json.dumps(found)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PATCH = do_DELETE = _do  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    configuration = kubernetes.client.Configuration()
    configuration.host = f"http://127.0.0.1:{server.server_port}"
    with kubernetes.client.ApiClient(configuration) as client:
        yield ClusterApi(client, "dnd")
    server.shutdown()
    server.server_close()


def healthy() -> FakeCluster:
    """A deployment on which nothing is wrong, with two nodes of two GPUs."""
    cluster = FakeCluster()
    gpus = ("activations", "captioner", "synthesizer", "scorer", "judge")
    for name in DEPLOYMENTS:
        cluster.put("/apis/apps/v1/namespaces/dnd/deployments", deployment(name, name in gpus))
        cluster.put("/api/v1/namespaces/dnd/pods", pod(name))
    for name in ("artifacts", "models", "probes"):
        claim = {
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteMany"]},
            "status": {"phase": "Bound"},
        }
        cluster.put("/api/v1/namespaces/dnd/persistentvolumeclaims", claim)
    for name in ("node-a", "node-b"):
        allocatable = {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "2"}
        cluster.put(
            "/api/v1/nodes", {"metadata": {"name": name}, "status": {"allocatable": allocatable}}
        )
    for name in ("synthesizer", "worker-synthesize"):
        ready = {"type": "Ready", "status": "True", "reason": "ScaledObjectReady"}
        scaled = {
            "metadata": {"name": name, "annotations": {}},
            "spec": {},
            "status": {"conditions": [ready]},
        }
        cluster.put("/apis/keda.sh/v1alpha1/namespaces/dnd/scaledobjects", scaled)
    cluster.texts["/api/v1/namespaces/dnd/services/coordinator:metrics/proxy/metrics"] = (
        "# TYPE dnd_backlog_seconds gauge\n"
        'dnd_backlog_seconds{stage="synthesize"} 754.5\n'
        'dnd_backlog_seconds{stage="score"} 0.0\n'
    )
    return cluster


DEPLOYMENTS = (
    *("activations", "captioner", "summarizer", "synthesizer", "scorer", "judge", "coordinator"),
    *("worker-index", "worker-exemplars", "worker-caption", "worker-summarize"),
    *("worker-synthesize", "worker-score"),
)


def deployment(name: str, with_gpu: bool = False) -> dict[str, Any]:
    limits = {"cpu": "4", "memory": "8Gi"} | ({"nvidia.com/gpu": "1"} if with_gpu else {})
    return {
        "metadata": {
            "name": name,
            "generation": 3,
            "labels": {"app.kubernetes.io/component": name},
        },
        "spec": {
            "replicas": 1,
            "template": {
                "spec": {"containers": [{"name": "main", "resources": {"limits": limits}}]}
            },
        },
        "status": {
            "observedGeneration": 3,
            "replicas": 1,
            "updatedReplicas": 1,
            "readyReplicas": 1,
            "availableReplicas": 1,
            "conditions": [
                {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
            ],
        },
    }


def pod(name: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"{name}-7d4b9c6f5-x2x9p",
            "labels": {"app.kubernetes.io/component": name},
        },
        "spec": {"containers": [{"name": "main"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [
                {
                    "name": "main",
                    "image": f"dnd-{name}:0.1.0",
                    "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                    "lastState": {},
                }
            ],
        },
    }
