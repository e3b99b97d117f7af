"""The classes of text-to-image pipelines, and how each names the embeddings of a prompt.

The pipelines of one family are called alike; the names below are those of diffusers' arguments.
A new family is one entry here, if its pipeline takes prepared latents and embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch

from dnd.errors import BadSetting, InvalidInput, ModelMissing
from dnd_services.synthesizer.schedulers import MODEL, SCHEDULERS

Embeddings: TypeAlias = Mapping[str, torch.Tensor]
"""Arguments of a pipeline's call; the first dimension of each is the image, 1 for one prompt."""


@dataclass(frozen=True)
class Family:
    """One class of pipelines.

    Attributes:
        outputs: Names, as arguments of the pipeline's call, of what `encode_prompt` returns.
        schedulers: Schedulers that its denoising loop can work with.
        takes_negative: Whether it takes the embeddings of an empty prompt for guidance.
        has_safety_checker: Whether it would put black pictures in place of some of its own.
    """

    outputs: tuple[str, ...]
    schedulers: tuple[str, ...] = SCHEDULERS
    takes_negative: bool = True
    has_safety_checker: bool = False


FAMILIES: Final[Mapping[str, Family]] = {
    "StableDiffusionPipeline": Family(
        outputs=("prompt_embeds", "negative_prompt_embeds"), has_safety_checker=True
    ),
    "StableDiffusionXLPipeline": Family(
        outputs=(
            "prompt_embeds",
            "negative_prompt_embeds",
            "pooled_prompt_embeds",
            "negative_pooled_prompt_embeds",
        )
    ),
    "LatentConsistencyModelPipeline": Family(
        outputs=("prompt_embeds", "negative_prompt_embeds"),
        schedulers=("lcm", MODEL),
        takes_negative=False,
        has_safety_checker=True,
    ),
}


def family_name(folder: Path) -> str:
    """Which of `FAMILIES` the weights in `folder` belong to.

    Raises:
        ModelMissing: `folder` holds no pipeline of diffusers.
        BadSetting: It is a pipeline of another class.
    """
    path = folder / "model_index.json"
    try:
        name = json.loads(path.read_text())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelMissing(
            f"{folder} holds no text-to-image pipeline: expected a model_index.json of diffusers."
        ) from None
    if not isinstance(name, str) or name not in FAMILIES:
        raise BadSetting(
            f"DND_MODEL: {folder} holds a {name}; expected one of {', '.join(FAMILIES)}."
        )
    return name


def embed_prompt(pipeline: Any, family: Family, prompt: str) -> Embeddings:
    """The embeddings of one prompt, each (1, …); for the empty prompt the unconditional ones too.

    A prompt is embedded alone, so that its embeddings never depend on what it shares a batch with.

    Raises:
        InvalidInput: The prompt has more tokens than the text encoder sees.
    """
    for tokenizer in (pipeline.tokenizer, getattr(pipeline, "tokenizer_2", None)):
        if tokenizer is None:
            continue
        num_tokens = len(tokenizer(prompt).input_ids)
        if num_tokens > tokenizer.model_max_length:
            raise InvalidInput(
                f"The prompt {prompt[:80]!r} has {num_tokens} tokens: this model's text encoder "
                f"sees {tokenizer.model_max_length}; shorten it."
            )
    values = pipeline.encode_prompt(
        prompt=prompt,
        device=pipeline.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=not prompt,
    )
    return {
        name: value
        for name, value in zip(family.outputs, values, strict=True)
        if value is not None and name.startswith("negative_") == (not prompt)
    }
