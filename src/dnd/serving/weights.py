"""Where model weights lie, and the digest that names them. Reads files only: no torch."""

from __future__ import annotations

import functools
import glob
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from dnd.errors import BadSetting, ModelMissing, UnsafeModelFile

_WEIGHTS = (".safetensors", ".gguf")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_CONFIGS = (".json", ".txt", ".model", ".jinja")


def resolve_weights(name: str, *, files: Iterable[str] = (), cache: Path | None = None) -> Path:
    """The local folder or file of the weights `name`.

    Args:
        name: A folder or file; "pack:starter/captioner" for a pack of this distribution; or a hub
            name with a pinned revision, "owner/name@revision", which is looked for in the local
            cache first.
        files: What is brought from the hub, by paths in the repository; everything that
            `weights_digest` names if there are none.
        cache: Where what comes from the hub is kept; None for the hub's own place.

    Raises:
        BadSetting: The name is empty, or a hub name without a revision.
        ModelMissing: Nothing is there.
    """
    if not name:
        raise BadSetting("DND_MODEL is not set: name a folder of weights or a hub name@revision.")
    if name.startswith("pack:"):
        return _existing(_packs() / name.removeprefix("pack:"), name)
    path = Path(name).expanduser()
    if path.exists() or name.startswith((".", "/", "~")):
        return _existing(path, name)
    repository, _, revision = name.partition("@")
    if not revision or repository.count("/") > 1:
        raise BadSetting(
            f"DND_MODEL = {name!r}: no such folder, and a hub name needs a pinned revision, "
            "'owner/name@revision'."
        )
    patterns = [glob.escape(file) for file in files] or [f"*{one}" for one in _WEIGHTS + _CONFIGS]
    return _from_hub(repository, revision, patterns, cache)


def has_pack(name: str) -> bool:
    """Whether this distribution carries the pack `name`, "pack:starter/judge" for example."""
    try:
        return (_packs() / name.removeprefix("pack:")).exists()
    except ModelMissing:
        return False


def _existing(path: Path, name: str) -> Path:
    if not path.exists():
        raise ModelMissing(f"There are no weights at {name!r}: name a folder or file.")
    return path.absolute()


def _packs() -> Path:
    """The folder of the packs that ship with the distribution."""
    from importlib.resources import files

    try:
        return Path(str(files("dnd_packs")))
    except ModuleNotFoundError:
        raise ModelMissing("The packs are not installed with this copy of dnd.") from None


def _from_hub(repository: str, revision: str, patterns: list[str], cache: Path | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError:
        raise ModelMissing(
            f"{repository}@{revision} would come from the hub, and huggingface_hub is not "
            "installed: install the extra of this service."
        ) from None
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=patterns,
                cache_dir=cache,
                local_files_only=os.environ.get("HF_HUB_OFFLINE") == "1",
            )
        )
    except Exception as error:
        raise ModelMissing(
            f"{repository}@{revision} is neither in the local cache nor to be had from the hub: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error


@functools.cache
def weights_digest(path: Path) -> str:
    """SHA-256 over the configuration and weights below `path`, 64 hexadecimal digits.

    Raises:
        UnsafeModelFile: Weights are there, but only as files that run code when they are read.
        ModelMissing: No weights are there at all.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if not any(file.suffix in _WEIGHTS for file in files):
        if has_pickles(path):
            raise UnsafeModelFile(
                f"{path} holds pickled weights only: convert them to safetensors, since reading a "
                "pickle runs code from it."
            )
        raise ModelMissing(f"{path} holds no weights: expected {' or '.join(_WEIGHTS)} files.")
    digest = hashlib.sha256()
    for file in files:
        if is_weights_file(file):
            digest.update(
                file.relative_to(path if path.is_dir() else path.parent).as_posix().encode()
            )
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def is_weights_file(path: Path) -> bool:
    """Whether a file is part of what `weights_digest` names: weights, or their configuration."""
    return path.suffix in _WEIGHTS + _CONFIGS


def has_pickles(path: Path) -> bool:
    """Whether weights in a format that runs code when it is read lie at or below `path`."""
    files = [path] if path.is_file() else path.rglob("*")
    return any(file.suffix in _PICKLES for file in files)
