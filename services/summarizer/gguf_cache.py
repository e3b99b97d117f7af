"""GGUF files turned into folders of safetensors, once for each file and number type.

Reading a GGUF file takes transformers far longer than reading the tensors that come out of it: the
second start of a summarizer, and the next replica on the same machine, take the folder.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)


def find_converted(cache: Path, digest: str, dtype: str) -> Path | None:
    """The folder that the GGUF file with SHA-256 `digest` was turned into, if it was."""
    folder = _place(cache, digest, dtype)
    return folder if folder.is_dir() else None


def keep_converted(cache: Path, digest: str, dtype: str, save: Callable[[Path], None]) -> None:
    """Has `save` write model and tokenizer into a folder of `cache`, complete or not at all.

    Without room or permission the model goes on without being kept.
    """
    folder = _place(cache, digest, dtype)
    draft = ""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = tempfile.mkdtemp(prefix=".", dir=folder.parent)
        save(Path(draft))
        os.replace(draft, folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another process was faster
            log.warning("the converted model is not kept in %s: %s", folder, error.strerror)
    except Exception as error:  # safetensors has an error of its own for a full disk
        log.warning("the converted model is not kept in %s: %s", folder, error)
    finally:
        if draft:
            shutil.rmtree(draft, ignore_errors=True)


def _place(cache: Path, digest: str, dtype: str) -> Path:
    return cache.expanduser() / "gguf" / f"{digest[:32]}-{dtype}"
