"""The classes of text-to-image pipelines, and how each names the embeddings of a prompt.

The pipelines of one family are called alike; the names below are those of diffusers' arguments.
A new family is one entry here, if its pipeline takes prepared latents and embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch

from dnd.errors import InvalidInput
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
    """

    outputs: tuple[str, ...]
    schedulers: tuple[str, ...] = SCHEDULERS
    takes_negative: bool = True


FAMILIES: Final[Mapping[str, Family]] = {
    "StableDiffusionPipeline": Family(outputs=("prompt_embeds", "negative_prompt_embeds")),
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
    ),
}


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
