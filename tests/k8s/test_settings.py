"""Every process finds in its pod what it reads: variables, files, the right program."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import fields
from pathlib import PurePosixPath

import pytest
from images import ROOT
from k8s.manifests import (
    OVERLAYS,
    Workload,
    environment,
    names_of,
    of_kind,
    overlay,
    workloads,
)

from dnd.clients import JUDGE, SERVICE_NAMES
from dnd.settings import ServerSettings, load
from dnd.stack.config import WORKERS
from dnd.tls import TlsFiles
from dnd_services.coordinator.settings import CoordinatorSettings, WorkerSettings

SECRET_VALUES = {
    "DND_DATABASE": "postgresql+psycopg://dnd:secret@postgres:5432/dnd",
    "DND_REDIS": "redis://:secret@redis:6379/0",
}
_FILES = (
    "tls_cert",
    "tls_key",
    "tls_ca",
    "models",
    "probes",
    "budgets",
    "api_key_file",
    "admin_token_file",
)
CASES = [
    (name, one)
    for name in OVERLAYS
    for one in workloads(overlay(name))
    if one.labels["dnd/kind"] in ("server", "coordinator", "worker")
]


def settings_class(workload: Workload) -> type[ServerSettings]:
    """The settings that the pod's program reads."""
    command = workload.main.get("command")
    if command:
        assert command == ["python", "-P", "-m", "dnd_services.coordinator.worker"]
        return WorkerSettings
    if workload.name == "coordinator":
        return CoordinatorSettings
    program = "scorer" if workload.name == JUDGE else workload.name
    assert workload.main["image"].startswith(f"dnd-{program}:")
    module = importlib.import_module(f"dnd_services.{program}.__main__")
    found: type[ServerSettings] = getattr(module, f"{program.capitalize()}Settings")
    return found


@pytest.mark.parametrize(
    ("name", "workload"), CASES, ids=[f"{name}-{one.name}" for name, one in CASES]
)
def test_settings_load_from_the_pods_variables(
    name: str, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TlsFiles, "check", lambda self: None)  # the files are in the pod
    found = environment(overlay(name), workload)
    values = {key: value or SECRET_VALUES.get(key, "") for key, value in found.items()}
    cls = settings_class(workload)
    settings = load(cls, [], values)
    known = {f"DND_{item.name.upper()}" for item in fields(cls)}
    # What all pods share may be for others: a worker has no model, a server no broker.
    own = {entry["name"] for entry in workload.main.get("env", [])}
    assert {key for key in own if key.startswith("DND_")} <= known
    mounts = [PurePosixPath(path) for path in workload.mounts()]
    for key in (*_FILES, "model", "artifacts"):
        path = str(getattr(settings, key, "") or "")
        if path.startswith("/") and not (key == "artifacts" and workload.name == "summarizer"):
            assert any(PurePosixPath(path).is_relative_to(one) for one in mounts), (key, path)
    assert settings.host == "0.0.0.0"
    assert settings.tls is not None


@pytest.mark.parametrize("name", OVERLAYS)
def test_shared_variables_are_read_by_somebody(name: str) -> None:
    known = {
        f"DND_{item.name.upper()}"
        for one in workloads(overlay(name))
        if one.labels["dnd/kind"] in ("server", "coordinator", "worker")
        for item in fields(settings_class(one))
    }
    for config in of_kind(overlay(name), "ConfigMap"):
        for key in config["data"]:
            if key.startswith("DND_"):
                assert key in known, key


# Who reads what is not ours: the hub's client, tokenizers, the C library and OpenMP, the store of
# a bucket, the exporter of traces; the image of PostgreSQL, and the command that starts Redis.
OTHERS = re.compile(
    "HOME|HF_HUB_OFFLINE|TOKENIZERS_PARALLELISM|MALLOC_(ARENA_MAX|MMAP_THRESHOLD_|TRIM_THRESHOLD_)"
    "|OMP_WAIT_POLICY|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|REGION|ENDPOINT)"
    "|OTEL_(EXPORTER_OTLP_ENDPOINT|TRACES_SAMPLER|TRACES_SAMPLER_ARG)"
    "|POSTGRES_(DB|USER|PASSWORD)|PGDATA|PASSWORD"
)


@pytest.mark.parametrize("name", OVERLAYS)
def test_variables_that_are_not_ours_are_known_by_name(name: str) -> None:
    for one in workloads(overlay(name)):
        for key in environment(overlay(name), one):
            assert key.startswith("DND_") or OTHERS.fullmatch(key), (one.name, key)


def test_what_processes_read_beside_their_settings_is_a_setting_or_of_the_command_line() -> None:
    """Modules look into the environment themselves: for logs, probes and `dnd` on a machine."""
    classes = [settings_class(one) for name, one in CASES if name == "gpu"]
    known = {f"DND_{item.name.upper()}" for cls in classes for item in fields(cls)}
    of_the_command_line = {"DND_HOME", "DND_SERVER", "DND_TOKEN", "DND_TOKEN_FILE"}
    read = set()
    for folder in ("src/dnd", "services"):
        for file in (ROOT / folder).rglob("*.py"):
            read |= set(re.findall(r"""environ(?:\.get\(|\[)["'](DND_\w+)""", file.read_text()))
            read |= set(re.findall(r"""envvar=["'](DND_\w+)""", file.read_text()))
    assert read - known == of_the_command_line
    assert "DND_LOG_FORMAT" in read


def test_the_page_on_deploying_makes_every_secret_with_the_keys_that_pods_read() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text().replace("\\\n", " ")
    made: dict[str, set[str]] = {}
    for line in re.findall(r"^kubectl -n dnd create secret generic (.*)$", page, re.MULTILINE):
        keys = re.findall(r"--from-(?:literal|file)=([\w-]+)=", line)
        made.setdefault(line.split()[0], set()).update(keys)
    read: dict[str, set[str]] = {}
    for name in OVERLAYS:
        for one in workloads(overlay(name)):
            for entry in one.main.get("env", []):
                key = entry.get("valueFrom", {}).get("secretKeyRef", {})
                if key and not key.get("optional"):
                    read.setdefault(key["name"], set()).add(key["key"])
            for variable in ("DND_ADMIN_TOKEN_FILE", "DND_API_KEY_FILE"):
                if path := environment(overlay(name), one).get(variable):
                    volume = one.mounts()[str(PurePosixPath(path).parent)]
                    secret = volume["secret"]["secretName"]
                    read.setdefault(secret, set()).add(PurePosixPath(path).name)
    assert made == read


@pytest.mark.parametrize("name", OVERLAYS)
def test_there_is_a_server_for_each_service_and_a_worker_for_each_stage(name: str) -> None:
    found = {one.name: one for one in workloads(overlay(name))}
    assert {*SERVICE_NAMES, JUDGE, "coordinator"} <= set(found)
    stages = {
        worker.removeprefix("worker-"): tuple(
            str(environment(overlay(name), one)["DND_STAGE"]).split(",")
        )
        for worker, one in found.items()
        if worker.startswith("worker-")
    }
    assert stages == WORKERS


@pytest.mark.parametrize("name", OVERLAYS)
def test_files_and_claims_exist(name: str) -> None:
    objects = overlay(name)
    for one in workloads(objects):
        for volume in one.pod.get("volumes", []):
            if "configMap" in volume:
                assert volume["configMap"]["name"] in names_of(objects, "ConfigMap")
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert claim in names_of(objects, "PersistentVolumeClaim")
        environ = environment(objects, one)
        for key in ("DND_MODELS", "DND_PROBES", "DND_BUDGETS"):
            if environ.get(key):
                path = PurePosixPath(str(environ[key]))
                config = one.mounts()[str(path.parent)]["configMap"]["name"]
                (data,) = (
                    c["data"]
                    for c in of_kind(objects, "ConfigMap")
                    if c["metadata"]["name"] == config
                )
                assert path.name in data


@pytest.mark.parametrize("name", OVERLAYS)
def test_jobs_run_modules_that_exist(name: str) -> None:
    for one in workloads(overlay(name)):
        if one.kind == "Job":
            assert one.main["command"][:3] == ["python", "-P", "-m"]
            assert importlib.util.find_spec(one.main["command"][3]) is not None
