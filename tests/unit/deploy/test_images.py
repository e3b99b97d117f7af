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
from pathlib import Path
from typing import Any

import pytest
import yaml
from images import IMAGES, ROOT, read_dockerfile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

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
    return {name: extra for name, (extra, _) in module.locks_of("cpu").items()}


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
        if name not in ("torch", "setuptools"):  # `make setup` does not pin these two
            assert pinned.get(name) == version, (
                f"{path.name}: {name}=={version}, see constraints.txt"
            )


def test_there_is_a_lock_for_every_image() -> None:
    assert {path.stem for path in LOCKS} == set(locked_extras())


def test_images_of_what_needs_no_torch_have_none() -> None:
    for path in LOCKS:
        heavy = {"torch", "transformers", "diffusers"} & set(read_lock(path))
        assert bool(heavy) == path.stem.endswith("-cpu"), path.stem
        assert not {"pip", "pytest", "mypy"} & set(read_lock(path)), path.stem


COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "docker" / "compose.yaml").read_text())
PROCESSES = {
    name: one for name, one in COMPOSE["services"].items() if name not in ("redis", "volumes-ready")
}


def compose_settings(name: str) -> ServerSettings:
    environ = {key: str(value) for key, value in PROCESSES[name]["environment"].items()}
    if name == "coordinator":
        return load(CoordinatorSettings, [], environ)
    if name.startswith("worker-"):
        return load(WorkerSettings, [], environ)
    module = importlib.import_module(f"dnd_services.{name}.__main__")
    cls: type[ServerSettings] = getattr(module, f"{name.capitalize()}Settings")
    found = load(cls, [], environ)
    assert {f"DND_{key.upper()}" for key in vars(found)} >= {k for k in environ if k[:4] == "DND_"}
    return found


def test_compose_runs_every_process_on_loopback_with_ports_of_its_own() -> None:
    settings = {name: compose_settings(name) for name in PROCESSES}
    assert set(IMAGES) <= set(settings)
    ports = [one.metrics_port for one in settings.values()]
    ports += [one.port for name, one in settings.items() if not name.startswith("worker-")]
    assert len(set(ports)) == len(ports)
    coordinator = settings["coordinator"]
    assert isinstance(coordinator, CoordinatorSettings)
    for service, target in coordinator.stage_targets.items():
        assert target == f"127.0.0.1:{settings[service].port}"
    stages: list[str] = []
    for name, one in settings.items():
        assert one.host == "127.0.0.1"
        if isinstance(one, WorkerSettings):
            assert one.stage_targets == coordinator.stage_targets, name
            stages += one.stages
    assert len(stages) == len(set(stages)) == 8


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
