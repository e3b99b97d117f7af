"""Runs what the overlay local-cpu describes as processes of this machine: from nothing to labels.

    PYTHONPATH=tests python tests/replay_overlay.py [UNITS]      # as root, on Linux; 0-1 by itself

Each pod is a process with the command, the variables, the files of ConfigMaps and Secrets and the
startup probe of its Deployment or Job, at an address of loopback under the name of its Service, in
a network of its own (`unshare`). Certificates have the names that the component tls asks for. Then
come the commands of docs/deploy.md, "The first labels". What is not replayed: images, users,
limits, network policies, and all that Kubernetes does itself. The record is a PostgreSQL of this
machine, the broker Valkey with the command of the component redis.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from images import ROOT, read_dockerfile
from k8s.manifests import Manifest, Workload, environment, of_kind, overlay, workloads

from dnd.stack.valkey import _find_server
from dnd.testing.postgres import start_postgres

OVERLAY = "local-cpu"
INSIDE = "REPLAYING_OVERLAY"
START_S = 300.0
PAGE = ROOT / "docs" / "deploy.md"
Secrets = Mapping[str, Mapping[str, str]]


@dataclass
class Pod:
    """One process, and the folders that stand for what its pod mounts.

    Attributes:
        mounts: Folders of this machine by the paths that the pod knows.
    """

    workload: Workload
    address: str
    mounts: Mapping[str, Path]
    environ: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return (
            self.mounts["/tmp"] / "log" if "/tmp" in self.mounts else self.mounts["/data"] / "log"
        )

    def here(self, text: str) -> str:
        """A text of the pod's with paths of this machine."""
        paths = "|".join(map(re.escape, sorted(self.mounts, key=len, reverse=True)))
        where = rf"(?<![\w/])({paths})(?![\w-])"
        return re.sub(where, lambda found: str(self.mounts[found[1]]), text)

    def start(self) -> None:
        """Starts the container's command, or the entry point of its image."""
        main = self.workload.main
        words = main.get("command")
        if not words:
            image = read_dockerfile(main["image"].partition(":")[0].removeprefix("dnd-")).image
            words = [
                w for name in ("ENTRYPOINT", "CMD") for i in image.all(name) for w in i.words()
            ]
        command = [self.here(word) for word in words]
        if command[0] == "python":
            command[0] = sys.executable
        else:
            server = f"{_find_server()} - --bind {self.address}"
            command = [word.replace("redis-server -", server) for word in command]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=self.environ, stdout=log, stderr=log)

    def wait(self) -> None:
        """Returns once the startup probe is content; of a Job, once it is complete."""
        assert self.process is not None
        if self.workload.kind == "Job":
            assert self.process.wait(START_S) == 0, self.log.read_text()
            return
        until = time.monotonic() + START_S
        while not self._is_up():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < until, f"{self.workload.name}: {self.log.read_text()[-3000:]}"
            time.sleep(0.5)

    def _is_up(self) -> bool:
        probe = self.workload.main["startupProbe"]
        try:
            if "grpc" in probe:
                with grpc.insecure_channel(f"{self.address}:{probe['grpc']['port']}") as channel:
                    stub = health_pb2_grpc.HealthStub(channel)
                    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=3)
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
            ((how, what),) = ((k, v) for k, v in probe.items() if k in ("httpGet", "tcpSocket"))
            port = self.workload.ports[what["port"]]
            if how == "tcpSocket":
                socket.create_connection((self.address, port), timeout=3).close()
                return True
            with urllib.request.urlopen(f"http://{self.address}:{port}{what['path']}", timeout=3):
                return True
        except (OSError, grpc.RpcError):
            return False

    def end(self) -> None:
        """SIGTERM, and the end within the pod's grace."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
            status = self.process.wait(self.workload.pod["terminationGracePeriodSeconds"])
            assert status == 0, f"{self.workload.name}: {status}: {self.log.read_text()[-3000:]}"


def make_pod(
    objects: Sequence[Manifest], workload: Workload, address: str, folder: Path, secrets_: Secrets
) -> Pod:
    """Folders and variables of a workload's pod."""
    own = folder / "pods" / workload.name
    mounts = {}
    for path, volume in workload.mounts().items():
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        mounts[path] = folder / "claims" / claim if claim else own / path.lstrip("/")
        mounts[path].mkdir(parents=True, exist_ok=True)
    pod = Pod(workload, address, mounts)
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(objects, "ConfigMap")}
    for path, volume in workload.mounts().items():
        files = maps[volume["configMap"]["name"]] if "configMap" in volume else {}
        if "secret" in volume:
            files = secrets_[volume["secret"]["secretName"]]
        for name, text in files.items():
            (mounts[path] / name).write_text(pod.here(text) if "configMap" in volume else text)
    found = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    found |= {k: pod.here(v) for k, v in environment(objects, workload).items() if v is not None}
    for entry in workload.main.get("env", []):
        if "valueFrom" in entry:
            key = entry["valueFrom"]["secretKeyRef"]
            found[entry["name"]] = secrets_[key["name"]][key["key"]]
    pod.environ = found | ({"DND_HOST": address} if "DND_HOST" in found else {})
    return pod


def make_secrets(objects: Sequence[Manifest], record: str) -> dict[str, dict[str, str]]:
    """What docs/deploy.md lets the operator make, and cert-manager of the component tls."""
    password = secrets.token_hex(24)
    found = {
        "dnd-database": {"url": record},
        "dnd-redis": {"password": password, "url": f"redis://:{password}@redis:6379/0"},
        "dnd-admin": {"token": secrets.token_hex(32)},
    }
    authority = trustme.CA()
    for one in of_kind(objects, "Certificate"):
        if "dnsNames" in one["spec"]:
            made = authority.issue_cert(*one["spec"]["dnsNames"])
            found[one["spec"]["secretName"]] = {
                "tls.crt": "".join(blob.bytes().decode() for blob in made.cert_chain_pems),
                "tls.key": made.private_key_pem.bytes().decode(),
                "ca.crt": authority.cert_pem.bytes().decode(),
            }
    return found


def replay(folder: Path, units: str) -> None:
    objects = overlay(OVERLAY)
    pods = [one for one in workloads(objects) if one.name != "postgres"]
    addresses = {one.name: f"127.0.1.{number}" for number, one in enumerate(pods, 1)}
    lines = [f"{address} {name} {name}.dnd.svc" for name, address in addresses.items()]
    (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
    subprocess.run(["mount", "--bind", folder / "hosts", "/etc/hosts"], check=True)
    with start_postgres() as record:
        made = make_secrets(objects, record.url)
        running = {
            one.name: make_pod(objects, one, addresses[one.name], folder, made) for one in pods
        }
        try:
            for kind in ("store", "job", "server", "coordinator", "worker"):
                of_it = [p for p in running.values() if p.workload.labels["dnd/kind"] == kind]
                for pod in of_it:
                    pod.start()
                for pod in of_it:
                    pod.wait()
                say(f"{kind}: {', '.join(pod.workload.name for pod in of_it)}")
            first_labels(folder, made, units)
            for kind in ("worker", "coordinator", "server", "store"):
                for pod in running.values():
                    if pod.workload.labels["dnd/kind"] == kind:
                        pod.end()
            say("all ended with status 0 within their grace")
        finally:
            for pod in running.values():
                if pod.process is not None:
                    pod.process.kill()


def first_labels(folder: Path, made: Secrets, units: str) -> None:
    """The commands of the page, on what the API server would answer."""
    page = PAGE.read_text().partition("## 5.")[2]
    own = folder / "own"
    own.mkdir()
    (own / "admin-token").write_text(made["dnd-admin"]["token"] + "\n")
    (script,) = re.findall(r"python3 -c '(.*?)'\n", page, re.DOTALL)
    encoded = {k: base64.b64encode(v.encode()).decode() for k, v in made["worker-tls"].items()}
    secret = json.dumps({"data": encoded})
    subprocess.run([sys.executable, "-c", script], input=secret, text=True, cwd=own, check=True)
    exported = re.findall(r"(DND_\w+)=\$PWD/(\S+)", page)
    environ = os.environ | {name: str(own / file) for name, file in exported}
    environ |= {"PYTHONPATH": str(ROOT / "src"), "PWD": str(own)}
    (label,) = re.findall(r"^dnd (label .*?--server \S+)$", page, re.DOTALL | re.MULTILINE)
    words = label.replace("\\\n", " ").replace("0-15", units).split()
    dnd(*words, "--yes", "--out", "results", environ=environ, cwd=own)
    records = [json.loads(line) for line in (own / "results" / "labels.jsonl").open()]
    for one in records:
        say(f"unit {one['unit']}: {one['state']} {[label['text'] for label in one['labels']]}")
    assert any(one["labels"] for one in records)
    server = ("--server", "coordinator:7000")
    dnd("evaluate", records[0]["job"], *server, environ=environ, cwd=own)
    token = dnd("tokens", "create", "laptop", "--tenant", "team", *server, environ=environ, cwd=own)
    assert "laptop" in token or len(token.strip()) >= 32
    with urllib.request.urlopen("http://coordinator.dnd.svc:9090/metrics", timeout=10) as metrics:
        assert 'dnd_backlog_seconds{stage="synthesize"}' in metrics.read().decode()


def dnd(*words: str, environ: Mapping[str, str], cwd: Path) -> str:
    """Runs `dnd` as an operator does; what it prints."""
    say("$ dnd " + " ".join(words))
    command = [sys.executable, "-m", "dnd.cli", *words]
    done = subprocess.run(
        command, env=environ, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGAN:6.0f} s  {text}", flush=True)


BEGAN = time.monotonic()

if __name__ == "__main__":
    if INSIDE not in os.environ:
        command = ["unshare", "--net", "--mount", sys.executable, *sys.argv]
        os.execvpe(command[0], command, os.environ | {INSIDE: "1"})
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="dnd-overlay-") as place:
        replay(Path(place), sys.argv[1] if len(sys.argv) > 1 else "0-1")
