"""Embeddings of texts and pictures by a model of the CLIP family (DnD section 3.3).

CLIP, SigLIP and whatever else `AutoModel` loads with text and image features. Inputs are made in
a pool of threads, `embed` runs in the device thread. Items of one batch have inputs of equal
shapes: a text is padded to a length that depends on nothing but itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from dnd.errors import BadImage, Internal, ModelMissing
from dnd.serving.batching import pad_items
from dnd.serving.placement import (
    Placement,
    check_tensors,
    check_tokenizer,
    describe_model,
    loading,
    place_model,
)
from dnd.serving.weights import resolve_weights, weights_digest
from dnd.settings import ModelServerSettings
from dnd.types import ModelInfo, OrError
from dnd_services.scorer.cache import Vector

log = logging.getLogger(__name__)

Bucket: TypeAlias = tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]
"""What the items of one batch share: "text" or "image", and name and shape of every input."""

_TEXT_STEP = 8
"""Texts are padded to a multiple of this many tokens."""

_MIN_SIDE = 16
"""Shorter sides are stretched to this many pixels: some processors fail on slivers."""


@dataclass(frozen=True)
class Prepared:
    """The inputs of one text or picture; the first dimension of each tensor is the one to join."""

    kind: str
    inputs: Mapping[str, torch.Tensor]

    @property
    def bucket(self) -> Bucket:
        shapes = ((name, tuple(value.shape)) for name, value in self.inputs.items())
        return (self.kind, tuple(sorted(shapes)))


class ClipModel:
    """A loaded model with its processors.

    Args:
        model: A model of transformers with `get_text_features` and `get_image_features`.
        tokenizer: Its tokenizer.
        image_processor: Its image processor.
        placement: Where it computes.
        info: Which weights these are; batches are padded to `info.fixed_batch` unless it is 0.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        *,
        placement: Placement,
        info: ModelInfo,
    ) -> None:
        self._model = model.to(placement.device).eval()
        self._tokenizer = tokenizer
        self._image_processor = image_processor
        self._placement = placement
        self._tokenizer_lock = threading.Lock()  # it keeps padding and length as its own state
        self._max_tokens = min(
            int(model.config.text_config.max_position_embeddings), int(tokenizer.model_max_length)
        )
        # SigLIP was trained on texts of full length without a mask; CLIP does not see the padding.
        self._pads_fully = str(model.config.model_type).startswith("siglip")
        self.info = info

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self._placement.device
        return device

    def prepare_text(self, text: str) -> Prepared:
        """The model's inputs for one text, cut at the model's length, in any thread."""
        with self._tokenizer_lock:
            short = self._tokenizer(text, truncation=True, max_length=self._max_tokens)
            num = len(short["input_ids"])
            length = min(-(-num // _TEXT_STEP) * _TEXT_STEP, self._max_tokens)
            inputs = self._tokenizer(
                text,
                padding="max_length",
                truncation=True,
                max_length=self._max_tokens if self._pads_fully else length,
                return_tensors="pt",
            )
        names = ("input_ids",) if self._pads_fully else ("input_ids", "attention_mask")
        return Prepared("text", {name: inputs[name] for name in names})

    def prepare_image(self, image: Image.Image, show_at: int) -> Prepared:
        """The model's inputs for one RGB picture, in any thread.

        Args:
            image: The picture.
            show_at: Shrink it to a square of this side first, pixels; 0 for as it is.

        Raises:
            BadImage: The model's processor does not take the picture.
        """
        width, height = image.size
        if show_at:
            image = image.resize((show_at, show_at), Image.Resampling.BICUBIC)
        if min(image.size) < _MIN_SIDE:
            image = image.resize((max(image.width, _MIN_SIDE), max(image.height, _MIN_SIDE)))
        try:
            inputs = self._image_processor(images=image, return_tensors="pt")
        except Exception as error:  # processors have no common class for what they refuse
            detail = " ".join(str(error).split())[:200] or type(error).__name__
            raise BadImage(
                f"The scorer's model does not take a picture of {width} x {height} pixels: {detail}"
            ) from error
        return Prepared("image", {name: self._cast(value) for name, value in inputs.items()})

    @torch.inference_mode()
    def embed(self, bucket: Bucket, items: Sequence[Prepared]) -> list[OrError[Vector]]:
        """L2-normalised `(dim,)` float32 embeddings of one bucket's items, in the device thread."""
        rows = pad_items(items, self.info.fixed_batch)
        inputs = {
            name: torch.cat([row.inputs[name] for row in rows]).to(self._placement.device)
            for name in items[0].inputs
        }
        kind, _ = bucket
        features = (
            self._model.get_text_features(**inputs)
            if kind == "text"
            else self._model.get_image_features(**inputs)
        )
        # Models of one family answer with a tensor, others with an output that holds it.
        tensor = features if isinstance(features, torch.Tensor) else features.pooler_output
        array = tensor[: len(items)].float().cpu().numpy()
        return [_normalise(row) for row in array]

    def _cast(self, value: Any) -> torch.Tensor:
        tensor = torch.as_tensor(value)
        return tensor.to(self._placement.dtype) if tensor.is_floating_point() else tensor


def load_clip(settings: ModelServerSettings) -> ClipModel:
    """Loads the model of `settings`, and embeds one text and one picture with it.

    Raises:
        BadSetting: The device or the name of the model cannot be used.
        ModelMissing: The model is not there, incomplete, or not of the CLIP family.
        UnsafeModelFile: It is there only as a pickle.
    """
    placement = place_model(settings)
    folder = resolve_weights(settings.model)
    digest = weights_digest(folder)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with loading(settings.model, folder):
        loaded: Any = AutoModel.from_pretrained(
            folder,
            dtype=placement.dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        model, report = loaded
        tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        image_processor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, local_files_only=True, trust_remote_code=False
        )
    check_tensors(settings.model, report["missing_keys"])
    num_words = model.config.get_text_config().vocab_size
    check_tokenizer(settings.model, len(tokenizer), num_words)
    info = describe_model(settings, digest, type(model).__name__, placement)
    clip = _try_out(model, tokenizer, image_processor, placement, info, folder)
    log.info("embedding with %s on %s, %s", info.architecture, info.device, info.dtype)
    return clip


def _normalise(row: Vector) -> OrError[Vector]:
    norm = float(np.linalg.norm(row))
    if not np.isfinite(norm) or norm == 0:
        return Internal(
            f"The model's embedding has norm {norm}: it cannot be normalised; "
            "a wider number type (DND_DTYPE) may help."
        )
    return row / np.float32(norm)


def _try_out(
    model: Any,
    tokenizer: Any,
    image_processor: Any,
    placement: Placement,
    info: ModelInfo,
    folder: Path,
) -> ClipModel:
    """A model that cannot embed fails here, not in the first job; it also warms the device up."""
    try:
        clip = ClipModel(model, tokenizer, image_processor, placement=placement, info=info)
        grey = Image.new("RGB", (224, 224), (128, 128, 128))
        vectors = [
            clip.embed(item.bucket, [item])[0]
            for item in (clip.prepare_text("a picture"), clip.prepare_image(grey, 0))
        ]
        sizes = [vector.shape for vector in vectors if not isinstance(vector, Exception)]
        if len(sizes) != 2 or sizes[0] != sizes[1]:
            raise ValueError(f"texts and pictures have embeddings {sizes}")
    except Exception as error:
        detail = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelMissing(
            f"{info.name} ({info.architecture}) is no model that embeds texts and pictures in one "
            f"space, such as CLIP or SigLIP: {detail}"
        ) from error
    return clip
