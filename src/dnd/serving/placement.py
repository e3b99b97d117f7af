"""Where a model server computes: device, number type, threads. Torch is looked up only when asked.

`dnd` installs without torch, so nothing here names it in an import statement; the four services
that compute with it call `place_model` once, in their backends.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnd.errors import BadSetting, DndError, ModelMissing, UnsafeModelFile
from dnd.serving.weights import has_pickles
from dnd.settings import ModelServerSettings


@dataclass(frozen=True)
class Placement:
    """Where a model computes.

    Attributes:
        device: A `torch.device`.
        dtype: A `torch.dtype`.
    """

    device: Any
    dtype: Any


def place_model(settings: ModelServerSettings) -> Placement:
    """Sets torch's threads and finds the device and number type of `settings`.

    With `fixed_batch` the matrix library is asked for results that do not depend on how memory is
    aligned, and so on the row that an item has in its batch. It must be asked before it multiplies
    for the first time: call this before anything is computed.

    Raises:
        BadSetting: torch is not installed, or it cannot use the device.
    """
    if settings.fixed_batch:
        os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
    try:
        torch = importlib.import_module("torch")
    except ModuleNotFoundError:
        raise BadSetting(
            "This service computes with torch, which is not installed: install the extra of the "
            "service, for example 'describe-and-dissect[captioner]'."
        ) from None
    if settings.threads:
        torch.set_num_threads(settings.threads)
    try:
        device = torch.device(settings.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        detail = str(error).split("\n")[0]
        raise BadSetting(
            f"DND_DEVICE = {settings.device!r}: torch cannot use it here: {detail}"
        ) from None
    if settings.fixed_batch:
        torch.backends.cudnn.deterministic = True
    return Placement(device, getattr(torch, settings.dtype))


@contextmanager
def loading(name: str, folder: Path) -> Iterator[None]:
    """Says in a sentence why the weights of `name` in `folder` do not load.

    Raises:
        UnsafeModelFile: Some part of the model is there as a pickle only.
        ModelMissing: Files are missing, damaged, or not of a kind that this service loads.
    """
    try:
        yield
    except DndError:
        raise
    except (
        Exception
    ) as error:  # the libraries raise OSError, ValueError, KeyError, SafetensorError …
        detail = " ".join(str(error).split())[:300] or type(error).__name__
        if has_pickles(folder) and "safetensors" in detail:
            raise UnsafeModelFile(
                f"{name}: a part of it is there only as a pickle, and reading a pickle runs code "
                f"from it: convert it to safetensors. ({detail})"
            ) from error
        raise ModelMissing(f"{name} does not load: {type(error).__name__}: {detail}") from error
