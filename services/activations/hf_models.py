"""Image models of transformers: `hf:folder` or `hf:owner/name@revision`, safetensors only."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
)

from dnd.errors import BadSetting, InvalidInput, ModelMissing
from dnd.serving.placement import check_tensors, loading
from dnd.serving.weights import resolve_weights, weights_digest
from dnd_services.activations.targets import Preprocessing, Target

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
_SQUASHED_FROM = 384
"""ConvNeXt's processor squashes pictures, instead of cutting the middle out, from this size on."""


def load_hf(location: str) -> Target:
    """A model with a classifier where its configuration has one, else the bare network.

    Raises:
        ModelMissing: It is not there, incomplete, or has no preprocessing configuration.
        UnsafeModelFile: Its weights are there as a pickle only.
        InvalidInput: Its preprocessing is none that this service can follow.
    """
    try:
        folder = resolve_weights(location)
    except BadSetting:
        raise InvalidInput(
            f"'hf:{location}': there is no such folder, and a model of the hub needs a pinned "
            "revision: 'hf:owner/name@revision'."
        ) from None
    weights_digest(folder)  # refuses a folder of pickles
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if not (folder / "preprocessor_config.json").exists():
        raise ModelMissing(
            f"hf:{location} has no preprocessor_config.json, so nothing says how it sees a "
            "picture: add the file, or load the model through a 'python:' factory."
        )
    with loading(f"hf:{location}", folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        classifies = any(
            name.endswith("ForImageClassification") for name in config.architectures or ()
        )
        loader: Any = AutoModelForImageClassification if classifies else AutoModel
        model, report = loader.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        processor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, local_files_only=True, trust_remote_code=False
        )
        check_tensors(f"hf:{location}", report["missing_keys"])
    return Target(model, read_processor(processor), _class_names(config) if classifies else ())


def read_processor(processor: Any) -> Preprocessing:
    """The preprocessing that an image processor of transformers stands for.

    Raises:
        InvalidInput: It pads, tiles, or keeps pictures at sizes of their own.
    """

    def read(name: str, default: Any = None) -> Any:
        value = getattr(processor, name, default)
        return default if value is None else value

    name = type(processor).__name__
    size, crop = read("size"), read("crop_size")
    edge = getattr(size, "shortest_edge", None)
    exact = (getattr(size, "height", None), getattr(size, "width", None))
    cut = (getattr(crop, "height", None), getattr(crop, "width", None))
    crops = bool(read("do_center_crop", False)) and None not in cut
    share = read("crop_pct")

    shape: Any
    shortest_edge: int | None
    if not read("do_resize", True) or read("do_pad", False):
        raise InvalidInput(f"The image processor {name} pads pictures or leaves their size: {_ASK}")
    if edge and share and not crops:
        shape = (edge, edge)
        shortest_edge = int(edge / share) if edge < _SQUASHED_FROM else None
    elif edge and crops:
        shape, shortest_edge = cut, edge
    elif None not in exact and (not crops or cut == exact):
        shape, shortest_edge = exact, None
    else:
        raise InvalidInput(
            f"The image processor {name} has size {size} and crop {crop if crops else None}: {_ASK}"
        )
    normalises = read("do_normalize", True)
    scale = float(read("rescale_factor", 1 / 255)) if read("do_rescale", True) else 1.0
    return Preprocessing(
        size=shape,
        shortest_edge=shortest_edge,
        mean=_three(read("image_mean")) if normalises else (0.0, 0.0, 0.0),
        std=_three(read("image_std")) if normalises else (1.0, 1.0, 1.0),
        scale=scale,
        resample=_RESAMPLE.get(int(read("resample", 2)), "bilinear"),
    )


_ASK = "load the model through a 'python:' factory that states its Preprocessing."


def _three(values: Any) -> tuple[float, float, float]:
    numbers = [float(value) for value in values] if isinstance(values, (list, tuple)) else [values]
    red, green, blue = numbers * 3 if len(numbers) == 1 else numbers
    return red, green, blue


def _class_names(config: Any) -> tuple[str, ...]:
    """Names of the classes, unless they are transformers' placeholders."""
    labels = config.id2label or {}
    names = tuple(str(labels[number]) for number in sorted(labels))
    return () if all(name.startswith("LABEL_") for name in names) else names
