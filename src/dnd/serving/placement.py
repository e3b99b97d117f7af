"""Where a model server computes: device, number type, threads. Torch is looked up only when asked.

`dnd` installs without torch, so nothing here names it in an import statement; the four services
that compute with it call `place_model` once, in their backends.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnd.errors import BadSetting, DndError, ModelMissing, UnsafeModelFile
from dnd.serving.weights import has_pickles
from dnd.settings import ModelServerSettings
from dnd.types import ModelInfo


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


def describe_model(
    settings: ModelServerSettings, digest: str, architecture: str, placement: Placement
) -> ModelInfo:
    """What a server says of the model that it computes with."""
    return ModelInfo(
        name=settings.model,
        digest=digest,
        architecture=architecture,
        dtype=settings.dtype,
        device=str(placement.device),
        fixed_batch=settings.max_batch if settings.fixed_batch else 0,
    )


def check_tensors(name: str, missing_keys: Iterable[str]) -> None:
    """Refuses a model that would compute with weights drawn at random.

    Args:
        missing_keys: As `from_pretrained(..., output_loading_info=True)` reports them.

    Raises:
        ModelMissing: Some tensors are not in the file.
    """
    if missing := sorted(missing_keys):
        raise ModelMissing(
            f"{name} is incomplete: {len(missing)} of its tensors are not in the file, "
            f"{missing[0]!r} first."
        )


def check_tokenizer(name: str, num_known: int, num_words: int, which: str = "tokenizer") -> None:
    """Refuses a tokenizer that was made up because its files are not there.

    Args:
        num_known: Tokens that the tokenizer knows.
        num_words: Tokens that the model knows.

    Raises:
        ModelMissing: The tokenizer knows less than half of them.
    """
    if num_known < num_words // 2:
        raise ModelMissing(
            f"{name} is incomplete: its {which} knows {num_known} of the model's {num_words} "
            "tokens; are the tokenizer's files there?"
        )


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
