"""Loading a pipeline part by part, so that what is missing is found and named.

diffusers loads a pipeline whose text encoder lacks tensors, or whose tokenizer lacks its words,
without a word: it would draw noise, and noise would be ranked.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import diffusers
import torch

from dnd.errors import BadSetting, ModelMissing
from dnd.serving.placement import check_tensors, check_tokenizer, loading
from dnd_services.synthesizer.families import FAMILIES

_LEFT_OUT: Final = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts that no drawing needs; the first would put black pictures in place of some."""


def load_pipeline(folder: Path, dtype: torch.dtype, variant: str = "") -> Any:
    """The pipeline in `folder`, on the CPU.

    Args:
        folder: What diffusers' `save_pretrained` writes.
        dtype: Number type of the loaded weights.
        variant: Which files of weights are read, "fp16" for *.fp16.safetensors.

    Raises:
        BadSetting: It is a pipeline of a class that is not in `FAMILIES`.
        ModelMissing: A part is missing, damaged or incomplete.
        UnsafeModelFile: A part is there only as a pickle.
    """
    index = _read_index(folder)
    name = index["_class_name"]
    given: dict[str, Any] = {part: None for part in _LEFT_OUT if part in index}
    if "safety_checker" in index:
        given["requires_safety_checker"] = False
    for part, (library, class_name) in _parts(index).items():
        if not (folder / part).is_dir():
            raise ModelMissing(f"{folder} is incomplete: its part {part!r} is not there.")
        if library not in ("diffusers", "transformers"):
            raise BadSetting(
                f"DND_MODEL: part {part!r} of {folder} is a {class_name} of {library}: only parts "
                "of diffusers and transformers are loaded, code of a model's folder is never run."
            )
        cls = getattr(importlib.import_module(library), class_name, None)
        if isinstance(cls, type) and issubclass(cls, torch.nn.Module):
            given[part] = _load_network(cls, folder / part, dtype, variant)
    with loading(str(folder), folder):
        pipeline = getattr(diffusers, name).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, **given
        )
    _check_words(pipeline, folder)
    return pipeline


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((folder / "model_index.json").read_text())
        name = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelMissing(
            f"{folder} holds no text-to-image pipeline: expected a model_index.json of diffusers."
        ) from None
    if not isinstance(name, str) or name not in FAMILIES:
        raise BadSetting(
            f"DND_MODEL: {folder} holds a {name}; expected one of {', '.join(FAMILIES)}."
        )
    return index


def _parts(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Library and class of every part that is there and needed."""
    return {
        part: (str(value[0]), str(value[1]))
        for part, value in index.items()
        if isinstance(value, list) and all(value) and part not in _LEFT_OUT
    }


def _load_network(cls: Any, folder: Path, dtype: torch.dtype, variant: str) -> torch.nn.Module:
    with loading(str(folder), folder):
        network, report = cls.from_pretrained(
            folder,
            dtype=dtype,
            variant=variant or None,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    check_tensors(str(folder), report["missing_keys"])
    return network  # type: ignore[no-any-return]


def _check_words(pipeline: Any, folder: Path) -> None:
    for suffix in ("", "_2"):
        tokenizer = getattr(pipeline, f"tokenizer{suffix}", None)
        encoder = getattr(pipeline, f"text_encoder{suffix}", None)
        if tokenizer is None or encoder is None:
            continue
        num_words = encoder.config.vocab_size
        check_tokenizer(str(folder), len(tokenizer), num_words, f"tokenizer{suffix}")
