"""Brings weights to a folder that model servers mount, each file checked against its SHA-256.

    python -m dnd.serving.fetch_weights weights.yaml /models            # a Job of deploy/k8s
    python -m dnd.serving.fetch_weights weights.yaml /models --record   # prints the digests

weights.yaml names what becomes a folder below /models:

    weights:
      scorer:
        source: openai/clip-vit-base-patch16@<revision>    # or a folder
        files: {config.json: <sha256>, model.safetensors: <sha256>}

A folder appears when all of its files are there and checked; one that is complete is left alone.
From the hub come the listed files and no others, first to a folder beside it on the same volume, so
that there must be room for what is fetched twice.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dnd import logs
from dnd.artifacts import file_reference
from dnd.errors import BadSetting, DndError, ModelMissing
from dnd.serving.weights import is_weights_file, resolve_weights

SUMS = "SHA256SUMS"
"""Written beside the files, as `sha256sum --check` reads it."""

_DOWNLOADS = ".downloads"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Weights:
    """One folder of weights.

    Attributes:
        name: The folder's name.
        source: A folder, or a hub name with a pinned revision, "owner/name@revision".
        files: SHA-256 of each file, 64 hexadecimal digits, by its path in the folder.
    """

    name: str
    source: str
    files: Mapping[str, str]


def read_manifest(path: Path) -> list[Weights]:
    """The weights that a manifest names.

    Raises:
        BadSetting: It cannot be read, or an entry is not of the form above.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadSetting(f"{path} cannot be read: {error}") from None
    entries = data.get("weights") if isinstance(data, dict) else None
    if not isinstance(entries, dict):
        raise BadSetting(f"{path}: expected 'weights:' with a source for each name.")
    return [_read_entry(str(name), entry, path) for name, entry in entries.items()]


def _read_entry(name: str, entry: Any, path: Path) -> Weights:
    where = f"{path}: {name}"
    if not _NAME.fullmatch(name):
        raise BadSetting(f"{where}: expected a folder's name of small letters, digits and . _ -")
    if not isinstance(entry, dict) or not isinstance(entry.get("source"), str):
        raise BadSetting(f"{where}: expected 'source: owner/name@revision' and 'files'.")
    files = entry.get("files") or {}
    for file, digest in files.items():
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise BadSetting(f"{where}: {file!r}: expected a path inside the folder.")
        if not _DIGEST.fullmatch(str(digest)):
            raise BadSetting(f"{where}: {file}: expected a SHA-256, 64 hexadecimal digits.")
    return Weights(name, entry["source"], files)


def fetch(weights: Weights, folder: Path) -> bool:
    """Brings one folder of weights below `folder`; whether there was anything to do.

    Raises:
        BadSetting: No file is listed.
        ModelMissing: The source does not have a file, or has another one by that name.
    """
    if not weights.files:
        raise BadSetting(
            f"{weights.name}: no files are listed. Run with --record, compare the digests with "
            "those that the publisher names, and put them into the manifest."
        )
    target = folder / weights.name
    if not _differences(weights, target):
        return False
    downloads = folder / _DOWNLOADS
    source = resolve_weights(weights.source, files=weights.files, cache=downloads)
    if wrong := _differences(weights, source):
        raise ModelMissing(f"{weights.name}: {weights.source} is not what was listed: {wrong}.")
    draft = folder / f".{weights.name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    for file in weights.files:
        (draft / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, draft / file)
    sums = "".join(f"{digest}  {file}\n" for file, digest in sorted(weights.files.items()))
    (draft / SUMS).write_text(sums)
    if wrong := _differences(weights, draft):
        raise ModelMissing(f"{weights.name}: the copy in {folder} is damaged: {wrong}.")
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    shutil.rmtree(downloads, ignore_errors=True)
    return True


def record(weights: Weights) -> dict[str, str]:
    """The digests of the files that a source has now, for the manifest.

    Raises:
        ModelMissing: Nothing is there.
    """
    source = resolve_weights(weights.source)
    return {
        path.relative_to(source).as_posix(): _digest(path)
        for path in sorted(source.rglob("*"))
        if path.is_file() and is_weights_file(path)
    }


def _differences(weights: Weights, folder: Path) -> str:
    """Which listed files `folder` lacks or has otherwise; empty for none."""
    lacking = [file for file in weights.files if not (folder / file).is_file()]
    if lacking:
        return f"{', '.join(lacking[:3])} missing"
    other = [f for f, digest in weights.files.items() if _digest(folder / f) != digest]
    return f"{', '.join(other[:3])} with another SHA-256" if other else ""


def _digest(path: Path) -> str:
    return file_reference(path).removeprefix("sha256:")


def main(argv: Sequence[str] | None = None) -> int:
    """Fetches what a manifest names. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="fetch_weights", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--record", action="store_true", help="print digests, fetch nothing")
    asked = parser.parse_args(argv)
    try:
        found = read_manifest(asked.manifest)
        if asked.record:
            listed = {w.name: {"source": w.source, "files": record(w)} for w in found}
            print(yaml.safe_dump({"weights": listed}, sort_keys=False), end="")
            return 0
        for weights in found:
            done = "checked and put there" if fetch(weights, asked.folder) else "was there"
            print(f"{weights.name}: {len(weights.files)} files, {done}", flush=True)
    except DndError as error:
        logs.say_why("fetch_weights", error.message)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
