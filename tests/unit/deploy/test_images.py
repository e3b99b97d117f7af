"""Dockerfiles, their locks and compose.yaml: what can be said of them without Docker."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from images import IMAGES, ROOT, read_dockerfile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from dnd.clients import JUDGE
from dnd.settings import ServerSettings, load
from dnd.version import VERSION
from dnd_services.coordinator.settings import CoordinatorSettings, WorkerSettings

LOCKS = sorted((ROOT / "deploy" / "docker" / "locks").glob("*.txt"))
_LINE = re.compile(r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:[0-9a-f]{64}")


@cache
def extras() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def requirements(extra: str) -> Iterator[Requirement]:
    """What an extra asks for, with the extras in it."""
    for text in extras()[extra]:
        asked = Requirement(text)
        if asked.name != "describe-and-dissect":
            yield asked
        for inner in asked.extras if asked.name == "describe-and-dissect" else ():
            yield from requirements(inner)


def read_lock(path: Path) -> dict[str, str]:
    found = {}
    for line in path.read_text().splitlines():
        matched = _LINE.fullmatch(line)
        assert matched, f"{path.name}: {line}"
        found[canonicalize_name(matched[1])] = matched[2]
    return found


@cache
def locked_extras() -> dict[str, str]:
    """The extras that each lock is made from, by scripts/lock_images.py."""
    file = ROOT / "scripts" / "lock_images.py"
    spec = importlib.util.spec_from_file_location("lock_images", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    both = {**module.locks_of("cpu"), **module.locks_of("cuda")}
    return {name: extra for name, (extra, _) in both.items()}


@pytest.mark.parametrize("image", IMAGES)
def test_dockerfile_is_clean_by_hadolint(image: str) -> None:
    checked = subprocess.run(
        [
            str(Path(sys.executable).with_name("hadolint")),
            str(ROOT / "services" / image / "Dockerfile"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.parametrize("image", IMAGES)
def test_image_holds_one_service_and_runs_without_root(image: str) -> None:
    dockerfile = read_dockerfile(image)
    built = dockerfile.image
    copied = [one.words() for one in built.all("COPY")]
    from_here = [words[0] for words in copied if not words[0].startswith("--from")]
    assert from_here == ["src/dnd", "services/__init__.py", f"services/{image}"]
    assert all((ROOT / source).exists() for source in from_here)
    assert built.one("USER").rest == "10001:10001"
    assert not built.all("RUN"), "what is installed is installed before, where there is pip"
    entry = built.one("ENTRYPOINT").words() + [w for cmd in built.all("CMD") for w in cmd.words()]
    assert entry == ["python", "-P", "-m", f"dnd_services.{image}"]
    assert built.one("HEALTHCHECK").rest.endswith('["python", "-P", "-m", "dnd.serving.probe"]')


@pytest.mark.parametrize("image", IMAGES)
def test_image_installs_pinned_packages_with_digests_from_an_index_that_is_given(
    image: str,
) -> None:
    packages = read_dockerfile(image).stage("packages")
    arguments = [one.rest for one in packages.all("ARG")]
    assert "PIP_INDEX_URL" in arguments, "no default"
    (lock,) = (rest.partition("=")[2] for rest in arguments if rest.startswith("LOCK="))
    assert lock in {path.stem for path in LOCKS}
    (run,) = packages.all("RUN")
    words = shlex.split(run.rest)
    assert words[:3] == ["test", "-n", "${PIP_INDEX_URL}"]
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(words)


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_lock_has_what_the_extra_asks_for(path: Path) -> None:
    """If this fails after a change of pyproject.toml: python scripts/lock_images.py."""
    locked = read_lock(path)
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]:
        name, _, version = line.partition("==")
        pinned[canonicalize_name(name)] = version
    for extra in ("", *locked_extras()[path.stem].split(",")):
        for asked in requirements(extra):
            name = canonicalize_name(asked.name)
            assert name in locked, f"{path.name} lacks {name}"
            assert asked.specifier.contains(Version(locked[name]), prereleases=True), asked
    for name, version in locked.items():
        # `make setup` does not pin the first two, and installs nothing of CUDA.
        if not re.match("torch$|setuptools$|nvidia-|cuda-|triton$", name):
            assert pinned.get(name) == version, (
                f"{path.name}: {name}=={version}, see constraints.txt"
            )


def test_there_is_a_lock_for_every_image() -> None:
    assert {path.stem for path in LOCKS} == set(locked_extras())


def test_no_compiler_is_in_an_image() -> None:
    """Wheels alone are installed (above), so none is needed; `slim` is the base image without one.

    Locks with CUDA have what compiles for the GPU, which torch brings: Triton and NVIDIA's NVRTC.
    """
    compilers = {"cmake", "cython", "meson", "ninja", "pybind11", "scikit-build", "ziglang"}
    for path in LOCKS:
        assert not compilers & set(read_lock(path)), path.stem
    for image in IMAGES:
        dockerfile = read_dockerfile(image)
        assert re.fullmatch(r"python:3\.11-slim-\w+", dockerfile.arguments["PYTHON_IMAGE"])
        assert "apt-get" not in (ROOT / "services" / image / "Dockerfile").read_text()


def test_images_of_what_needs_no_torch_have_none() -> None:
    for path in LOCKS:
        heavy = {"torch", "transformers", "diffusers"} & set(read_lock(path))
        assert bool(heavy) == path.stem.endswith(("-cpu", "-cuda")), path.stem
        assert not {"pip", "pytest", "mypy"} & set(read_lock(path)), path.stem


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_cuda_is_in_the_locks_that_are_named_so_and_in_no_others(path: Path) -> None:
    locked = read_lock(path)
    nvidia = [name for name in locked if name.startswith("nvidia-")]
    if not path.stem.endswith("-cuda"):
        assert not nvidia
        return
    assert locked["torch"] == "2.13.0", "a build with CUDA has no local version"
    assert {"nvidia-cublas", "nvidia-cudnn-cu13", "triton"} <= set(locked)
    cpu = read_lock(path.with_stem(path.stem.replace("-cuda", "-cpu")))
    assert {name: cpu[name] for name in cpu if name != "torch"}.items() <= locked.items()


COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "docker" / "compose.yaml").read_text())
PROCESSES = {
    name: one for name, one in COMPOSE["services"].items() if name not in ("redis", "volumes-ready")
}


def settings_class(name: str) -> type[ServerSettings]:
    """The settings that a process of compose.yaml reads."""
    if name == "coordinator":
        return CoordinatorSettings
    if name.startswith("worker-"):
        return WorkerSettings
    program = "scorer" if name == JUDGE else name
    assert PROCESSES[name]["image"].startswith(f"dnd-{program}:")
    module = importlib.import_module(f"dnd_services.{program}.__main__")
    found: type[ServerSettings] = getattr(module, f"{program.capitalize()}Settings")
    return found


def compose_settings(name: str) -> ServerSettings:
    environ = {key: str(value) for key, value in PROCESSES[name]["environment"].items()}
    found = load(settings_class(name), [], environ)
    assert {f"DND_{key.upper()}" for key in vars(found)} >= {k for k in environ if k[:4] == "DND_"}
    return found


def test_compose_runs_every_process_on_loopback_with_ports_of_its_own() -> None:
    settings = {name: compose_settings(name) for name in PROCESSES}
    assert {*IMAGES, JUDGE} <= set(settings)
    ports = [one.metrics_port for one in settings.values()]
    ports += [one.port for name, one in settings.items() if not name.startswith("worker-")]
    assert len(set(ports)) == len(ports)
    coordinator = settings["coordinator"]
    assert isinstance(coordinator, CoordinatorSettings)
    for service, target in coordinator.targets.items():
        assert target == f"127.0.0.1:{settings[service].port}"
    stages: list[str] = []
    for name, one in settings.items():
        assert one.host == "127.0.0.1"
        if isinstance(one, WorkerSettings):
            assert one.stage_targets == coordinator.stage_targets, name
            stages += one.stages
    assert len(stages) == len(set(stages)) == 8


def test_compose_judges_with_another_model_than_it_selects_with() -> None:
    models = [PROCESSES[name]["environment"]["DND_MODEL"] for name in ("scorer", JUDGE)]
    assert len(set(models)) == 2


def test_compose_mounts_what_its_processes_read_and_write() -> None:
    for name in PROCESSES:
        service, settings = PROCESSES[name], compose_settings(name)
        mounts = [one.split(":")[1] for one in service.get("volumes", [])]
        mounts += [f"/run/secrets/{one}" for one in service.get("secrets", [])]
        if name != "summarizer":  # it reads and writes no artifacts
            assert settings.artifacts in mounts
        for key in ("models", "probes", "model", "api_key_file", "database"):
            path = str(getattr(settings, key, "")).removeprefix("sqlite:///")
            if path.startswith("/"):
                assert any(PurePosixPath(path).is_relative_to(one) for one in mounts), (name, path)


def test_compose_names_volumes_secrets_and_conditions_that_exist() -> None:
    services = COMPOSE["services"]
    asked = set()
    for name, one in services.items():
        asked |= set(re.findall(r"\$\{(\w+)\}", str(one)))
        for source in mounted(one):
            assert source in COMPOSE["volumes"] or source.startswith("${"), (name, source)
        assert set(one.get("secrets", [])) <= set(COMPOSE["secrets"])
        for other, how in one.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert has_healthcheck(services[other]), (name, other)
            else:
                assert how["condition"] == "service_completed_successfully"
                assert "restart" not in services[other]
        if name != "volumes-ready" and set(COMPOSE["volumes"]) & mounted(one):
            assert waits_for(name, "volumes-ready"), name
    asked |= set(re.findall(r"\$\{(\w+)\}", str(COMPOSE["secrets"])))
    header = (ROOT / "deploy" / "docker" / "compose.yaml").read_text().partition("name:")[0]
    assert asked == set(re.findall(r"(\w+)=", header))


def mounted(service: dict[str, Any]) -> set[str]:
    """The volumes of a service, or folders of the machine."""
    return {one.split(":")[0] for one in service.get("volumes", [])}


def has_healthcheck(service: dict[str, Any]) -> bool:
    """Of its own, or that of our image."""
    image = service["image"].partition(":")[0].removeprefix("dnd-")
    return "healthcheck" in service or (
        image in IMAGES and bool(read_dockerfile(image).image.one("HEALTHCHECK"))
    )


def waits_for(name: str, other: str) -> bool:
    """Whether a service is started after another one, directly or through others."""
    before = COMPOSE["services"][name].get("depends_on", {})
    return other in before or any(waits_for(one, other) for one in before)


def test_compose_gives_the_gpu_to_model_servers_and_time_to_end_to_all() -> None:
    with_gpu = set()
    for name in PROCESSES:
        service, settings = PROCESSES[name], compose_settings(name)
        devices = (
            service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices")
        )
        if devices:
            assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
            assert getattr(settings, "device", "").startswith("cuda")
            with_gpu.add(name)
        grace_s = float(service.get("stop_grace_period", "10s").removesuffix("s"))
        if not name.startswith("worker-"):
            assert grace_s > settings.drain_s + 5, name
        assert has_healthcheck(service)
    assert with_gpu == {"activations", "captioner", "synthesizer", "scorer", JUDGE}


def test_compose_containers_are_unprivileged() -> None:
    for name, one in COMPOSE["services"].items():
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert one["network_mode"] == ("none" if name == "volumes-ready" else "host")
        image, _, tag = one["image"].partition(":")
        assert tag not in ("", "latest")
        assert image == "redis" or image.removeprefix("dnd-") in IMAGES


def test_version_that_processes_show_is_that_of_the_distribution_and_its_images() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    base = yaml.safe_load((ROOT / "deploy" / "k8s" / "base" / "kustomization.yaml").read_text())
    assert {image["newTag"] for image in base["images"]} == {VERSION}
