"""Image-to-text models of transformers (DnD, step 2, first half: captions of the exemplars).

BLIP, BLIP-2 and whatever else `AutoModelForImageTextToText` loads. Work is split in three, so that
the device never waits for a picture to be decoded: `prepare` in a pool of threads, `generate` in
the device thread, `read` in threads again. Decoding is greedy or by beams, never sampled: the same
picture has the same caption.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import transformers
from PIL import Image
from transformers import AutoModelForImageTextToText

from dnd.errors import BadAnswer, ModelMissing
from dnd.profiles import CaptionSettings
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
from dnd_services.captioner.prompting import (
    PictureReader,
    Prepared,
    Shapes,
    join,
    load_processor,
)

log = logging.getLogger(__name__)

Bucket: TypeAlias = tuple[CaptionSettings, Shapes]
"""What the items of one batch share."""

Tokens: TypeAlias = tuple[int, ...]


class Captioner:
    """A loaded model with its processor.

    Args:
        model: A model of transformers that generates text from images.
        processor: Its processor.
        prompt: What the model is asked; empty as in `PictureReader`.
        placement: Where it computes.
        info: Which weights these are; batches are padded to `info.fixed_batch` unless it is 0.
    """

    def __init__(
        self, model: Any, processor: Any, *, prompt: str, placement: Placement, info: ModelInfo
    ) -> None:
        self._model = model.to(placement.device).eval()
        self._tokenizer = processor.tokenizer
        self._reader = PictureReader(processor, prompt, placement.dtype)
        self._device = placement.device
        self._asked = "" if self._reader.is_chat else self._spell(self._reader.prompt)
        self.info = info

    def prepare(self, image: Image.Image) -> Prepared:
        """The model's inputs for one RGB picture, in any thread. Raises BadImage."""
        return self._reader.prepare(image)

    @torch.inference_mode()
    def generate(self, bucket: Bucket, items: Sequence[Prepared]) -> list[Tokens]:
        """The tokens of one caption for each item, in the device thread.

        `settings.min_length` counts the start token, as transformers does for BLIP, so 5 asks for
        at least four tokens after it.
        """
        settings, _ = bucket
        inputs = join(pad_items(items, self.info.fixed_batch), self._device)
        rows = self._model.generate(
            **inputs,
            do_sample=False,
            num_beams=settings.num_beams,
            max_new_tokens=settings.max_new_tokens,
            min_new_tokens=max(0, settings.min_length - 1),
        )
        asked = inputs.get("input_ids")
        if asked is not None and torch.equal(rows[:, : asked.shape[1]], asked):
            rows = rows[:, asked.shape[1] :]
        return [tuple(row) for row in rows[: len(items)].tolist()]

    def read(self, tokens: Tokens) -> OrError[str]:
        """The caption that `tokens` spell, in any thread; BadAnswer where they spell nothing."""
        text = clean(self._tokenizer.decode(tokens, skip_special_tokens=True))
        if self._asked and text.startswith(self._asked):
            text = text.removeprefix(self._asked).strip()
        if not any(character.isalnum() for character in text):
            return BadAnswer(
                f"The captioner's model answered {text!r} to this picture: no word in it."
            )
        return text

    def _spell(self, prompt: str) -> str:
        """`prompt` as it would come back in a caption that begins with it."""
        ids = self._tokenizer(prompt).input_ids if prompt else []
        return clean(self._tokenizer.decode(ids, skip_special_tokens=True))


def load_captioner(settings: ModelServerSettings, prompt: str = "") -> Captioner:
    """Loads the model of `settings` and captions one grey picture with it.

    Raises:
        BadSetting: The device or the name of the model cannot be used.
        ModelMissing: The model is not there, incomplete, or does not caption with this prompt.
        UnsafeModelFile: It is there only as a pickle.
    """
    placement = place_model(settings)
    folder = resolve_weights(settings.model)
    digest = weights_digest(folder)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with loading(settings.model, folder):
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=placement.dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        model, report = loaded
        processor = load_processor(folder)
    check_tensors(settings.model, report["missing_keys"])
    num_words = model.config.get_text_config().vocab_size
    check_tokenizer(settings.model, len(processor.tokenizer), num_words)
    info = describe_model(settings, digest, type(model).__name__, placement)
    captioner = Captioner(model, processor, prompt=prompt, placement=placement, info=info)
    _try_out(captioner, prompt)
    log.info("captioning with %s on %s, %s", info.architecture, info.device, info.dtype)
    return captioner


def clean(text: str) -> str:
    """`text` on one line, without control, format and surrogate characters, blanks trimmed."""
    kept = (" " if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)
    return " ".join("".join(kept).split())


def _try_out(captioner: Captioner, prompt: str) -> None:
    """A model that cannot caption fails here, not in the first job; it also warms the device up."""
    settings = CaptionSettings(max_new_tokens=2, min_length=0)
    try:
        item = captioner.prepare(Image.new("RGB", (224, 224), (128, 128, 128)))
        captioner.read(captioner.generate((settings, item.shapes), [item])[0])
    except Exception as error:
        detail = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelMissing(
            f"{captioner.info.name} ({captioner.info.architecture}) does not caption a picture "
            f"with DND_PROMPT = {prompt!r}: {detail} Models without a chat template take the "
            "prompt as it is, image tokens included."
        ) from error
