"""How one picture, with or without a prompt, becomes a model's inputs.

Every model has its own way: BLIP sees the picture alone, a chat model a conversation with as many
image tokens as the picture has tiles. All of that is left to the model's own processor, which makes
the inputs of one picture at a time. Inputs of equal shapes can then be joined along their first
dimension, whatever they are, and unequal ones are never padded into one batch: so an item is
computed the same alone and in a batch, and preparing needs no other item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

from dnd.errors import BadImage
from dnd_services.captioner.model import CHAT_PROMPT

MIN_SIDE = 32
"""Shorter sides are stretched to this many pixels: some processors fail on slivers."""

Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]
"""Name and shape of every input: what two items of one batch must share."""


@dataclass(frozen=True)
class Prepared:
    """The inputs of one picture; the first dimension of each tensor is the one to join along."""

    inputs: Mapping[str, torch.Tensor]

    @property
    def shapes(self) -> Shapes:
        return tuple(sorted((name, tuple(value.shape)) for name, value in self.inputs.items()))


class PictureReader:
    """Makes inputs of pictures, by a model's own processor.

    Args:
        processor: A processor of transformers.
        prompt: What the model is asked; empty for nothing, or for `CHAT_PROMPT` of a chat model.
        dtype: Number type of the model.
    """

    def __init__(self, processor: Any, prompt: str, dtype: torch.dtype) -> None:
        self._processor = processor
        self._dtype = dtype
        self.is_chat = bool(getattr(processor, "chat_template", None))
        self.prompt = prompt or (CHAT_PROMPT if self.is_chat else "")

    def prepare(self, image: Image.Image) -> Prepared:
        """The inputs of one RGB picture; safe to call from several threads.

        Raises:
            BadImage: The model's processor does not take the picture.
        """
        width, height = image.size
        if min(image.size) < MIN_SIDE:
            image = image.resize((max(width, MIN_SIDE), max(height, MIN_SIDE)))
        try:
            inputs = self._process(image)
        except Exception as error:  # processors have no common class for what they refuse
            detail = " ".join(str(error).split())[:200] or type(error).__name__
            raise BadImage(
                f"The captioner's model does not take a picture of {width} x {height} pixels: "
                f"{detail}"
            ) from error
        return Prepared({name: self._cast(value) for name, value in inputs.items()})

    def _process(self, image: Image.Image) -> Mapping[str, Any]:
        if self.is_chat:
            content = [{"type": "image", "image": image}, {"type": "text", "text": self.prompt}]
            inputs: Mapping[str, Any] = self._processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
            return inputs
        asked = {"text": self.prompt} if self.prompt else {}
        inputs = self._processor(images=image, return_tensors="pt", **asked)
        return inputs

    def _cast(self, value: Any) -> torch.Tensor:
        tensor = torch.as_tensor(value)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor


def join(items: Sequence[Prepared], device: torch.device) -> dict[str, torch.Tensor]:
    """The inputs of a batch of items of equal shapes, on `device`."""
    return {
        name: torch.cat([item.inputs[name] for item in items]).to(device)
        for name in items[0].inputs
    }


class _SeparateProcessor:
    """Image processor and tokenizer of a model that comes without a processor of its own."""

    def __init__(self, folder: Path) -> None:
        images: Any = AutoImageProcessor
        self._image_processor = images.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        self.tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )

    def __call__(self, images: Image.Image, return_tensors: str, text: str = "") -> dict[str, Any]:
        inputs = dict(self._image_processor(images=images, return_tensors=return_tensors))
        if text:
            inputs["input_ids"] = self.tokenizer(text, return_tensors=return_tensors).input_ids
        return inputs


def load_processor(folder: Path) -> Any:
    """The processor that lies beside a model's weights, or one made of its two halves."""
    processors: Any = AutoProcessor
    processor = processors.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    whole = hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")
    return processor if whole else _SeparateProcessor(folder)
