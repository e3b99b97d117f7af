"""Text-to-image pipelines of diffusers (DnD, step 3: synthetic images of a concept).

One batch may mix prompts. What decides a drawing is its own prompt and seed: the prompt is embedded
alone, the noise comes from one generator for each drawing, on the CPU and in float32, so that it is
the same on every device and in every number type. The pipeline's own safety checker stays off: its
black pictures would be ranked.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

from dnd.errors import BadAnswer, BadSetting, Cancelled, DndError, ModelMissing
from dnd.profiles import SynthesisSettings
from dnd.serving.batching import pad_items
from dnd.serving.placement import describe_model, place_model
from dnd.serving.weights import resolve_weights, weights_digest
from dnd.settings import ModelServerSettings
from dnd.types import Drawing, ModelInfo, OrError
from dnd_services.synthesizer.families import FAMILIES, Embeddings, embed_prompt
from dnd_services.synthesizer.parts import load_pipeline
from dnd_services.synthesizer.schedulers import check_steps, make_scheduler

log = logging.getLogger(__name__)

MAX_SIZE = 2048
"""Pixels of a side at most: what a request can ask of the device's memory is bounded."""

CACHED_PROMPTS = 256
"""Embedded prompts kept; at 0.3 MB each for SDXL in 16 bits."""

MAX_BLACK = 2
"""A picture without any value above this, of 255, is the black one of a numerical failure."""


class Synthesizer:
    """A loaded pipeline.

    Args:
        pipeline: A text-to-image pipeline of diffusers, of a class in `FAMILIES`, on its device.
        info: Which weights these are; batches are padded to `info.fixed_batch` unless it is 0.
    """

    def __init__(self, pipeline: Any, info: ModelInfo) -> None:
        self._pipeline = pipeline
        self._family = FAMILIES[type(pipeline).__name__]
        self._own_scheduler = pipeline.scheduler
        self._factor = int(np.lcm(8, pipeline.vae_scale_factor))
        self._embed = functools.lru_cache(CACHED_PROMPTS)(
            functools.partial(embed_prompt, pipeline, self._family)
        )
        self._checked = functools.lru_cache(CACHED_PROMPTS)(self._check_scheduler)
        self.info = info

    def check(self, settings: SynthesisSettings) -> None:
        """Raises BadSetting for settings that this pipeline cannot draw with; in any thread."""
        if settings.size % self._factor or not self._factor <= settings.size <= MAX_SIZE:
            raise BadSetting(
                f"settings.size is {settings.size}: expected a multiple of {self._factor}, "
                f"{self._factor} to {MAX_SIZE} pixels."
            )
        if not (settings.guidance == 0 or 1 <= settings.guidance <= 100):
            raise BadSetting(
                f"settings.guidance is {settings.guidance}: expected 1 to 100; 0 and 1 switch "
                "guidance off."
            )
        self._checked(settings.scheduler, settings.num_steps)

    @torch.inference_mode()
    def draw(
        self,
        settings: SynthesisSettings,
        drawings: Sequence[Drawing],
        is_abandoned: Callable[[], bool] = lambda: False,
    ) -> list[OrError[Image.Image]]:
        """One square RGB picture for each drawing, in the device thread.

        A drawing has a BadAnswer in place of a picture where the numbers failed, and an
        InvalidInput where the text encoder does not see the whole prompt.

        Args:
            is_abandoned: Asked after each step: whether nobody waits for the drawings any more.

        Raises:
            Cancelled: Nobody does.
        """
        embedded = [self._embed_or_error(drawing.prompt) for drawing in drawings]
        good = [
            (drawing.seed, embeddings)
            for drawing, embeddings in zip(drawings, embedded, strict=True)
            if not isinstance(embeddings, DndError)
        ]
        pictures = iter(self._draw_rows(settings, good, is_abandoned) if good else ())
        return [one if isinstance(one, DndError) else next(pictures) for one in embedded]

    def _draw_rows(
        self,
        settings: SynthesisSettings,
        good: Sequence[tuple[int, Embeddings]],
        is_abandoned: Callable[[], bool],
    ) -> list[OrError[Image.Image]]:
        rows = pad_items(good, self.info.fixed_batch)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed, _ in rows]
        embeddings = _stack([embeddings for _, embeddings in rows])
        if settings.guidance > 1 and self._family.takes_negative:
            embeddings |= _stack([self._embed("")] * len(rows))
        self._pipeline.scheduler = make_scheduler(
            settings.scheduler, self._own_scheduler, self._family.schedulers
        )
        (pixels, *_) = self._pipeline(
            **embeddings,
            height=settings.size,
            width=settings.size,
            num_inference_steps=settings.num_steps,
            guidance_scale=settings.guidance,
            latents=self._noise(settings.size, generators).to(embeddings["prompt_embeds"]),
            generator=generators,
            output_type="pt",
            return_dict=False,
            callback_on_step_end=functools.partial(_stop_if, is_abandoned),
        )
        return _to_pictures(pixels[: len(good)])

    def _noise(self, size: int, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Where each drawing starts: (drawings, channels, height, width) on the CPU."""
        side = size // self._pipeline.vae_scale_factor
        shape = (self._pipeline.unet.config.in_channels, side, side)
        return torch.stack([torch.randn(shape, generator=generator) for generator in generators])

    def _embed_or_error(self, prompt: str) -> OrError[Embeddings]:
        try:
            return self._embed(prompt)
        except DndError as error:
            return error

    def _check_scheduler(self, name: str, num_steps: int) -> None:
        scheduler = make_scheduler(name, self._own_scheduler, self._family.schedulers)
        check_steps(name, scheduler, num_steps)


def load_synthesizer(settings: ModelServerSettings, variant: str = "") -> Synthesizer:
    """Loads the pipeline of `settings` and draws one small picture with it.

    Raises:
        BadSetting: The device, the name of the model or its class cannot be used.
        ModelMissing: The model is not there, incomplete, or does not draw.
        UnsafeModelFile: A part of it is there only as a pickle.
    """
    placement = place_model(settings)
    folder = resolve_weights(settings.model)
    digest = weights_digest(folder)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    pipeline = load_pipeline(folder, placement.dtype, variant)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(placement.device)
    if placement.device.type == "cuda":
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    info = describe_model(settings, digest, type(pipeline).__name__, placement)
    synthesizer = Synthesizer(pipeline, info)
    _try_out(synthesizer)
    log.info("drawing with %s on %s, %s", info.architecture, info.device, info.dtype)
    return synthesizer


def _stop_if(
    is_abandoned: Callable[[], bool], _pipeline: Any, step: int, *_: Any
) -> dict[str, Any]:
    """What a pipeline calls after each step; it changes nothing."""
    if is_abandoned():
        raise Cancelled(f"All callers have gone: drawing stopped after step {step + 1}.")
    return {}


def _stack(rows: Sequence[Embeddings]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _to_pictures(pixels: torch.Tensor) -> list[OrError[Image.Image]]:
    """Pictures of (drawings, 3, height, width) in 0..1; BadAnswer for what is no picture."""
    finite = pixels.isfinite().flatten(1).all(1).tolist()
    levels = pixels.float().nan_to_num().mul(255).round().to(torch.uint8)
    arrays = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return [_to_picture(array, good) for array, good in zip(arrays, finite, strict=True)]


def _to_picture(array: np.ndarray, finite: bool) -> OrError[Image.Image]:
    if not finite:
        return BadAnswer(
            "The drawing has values that are no numbers: the weights overflow in this number type; "
            "set DND_DTYPE to bfloat16 or float32."
        )
    if array.max() <= MAX_BLACK:
        return BadAnswer("The drawing is black from edge to edge.")
    return Image.fromarray(array)


def _try_out(synthesizer: Synthesizer) -> None:
    """A pipeline that cannot draw fails here, not in the first job; it also warms the device up."""
    settings = SynthesisSettings(num_steps=2, guidance=2.0, size=64, scheduler="model")
    try:
        synthesizer.draw(settings, [Drawing("a circle", 0)])
    except Exception as error:
        detail = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelMissing(
            f"{synthesizer.info.name} ({synthesizer.info.architecture}) does not draw: {detail}"
        ) from error
