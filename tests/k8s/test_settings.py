"""Every process finds in its pod what it reads: variables, files, the right program."""

from __future__ import annotations

import importlib.util
from dataclasses import fields
from pathlib import PurePosixPath

import pytest
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
