"""The texts that describe each image: names, keywords, kinds and colours, in many wordings."""

import random
from dataclasses import dataclass

import torch
from transformers import CLIPTokenizer

from dnd_packs.starter.emoji_data import EmojiConcept, load_concepts

from .tokenizer import MAX_TOKENS
from .views import Rasters
from .words import KINDS, TEMPLATES, caption, plain_words

# Share of each kind of text; what an image lacks falls back to its name.
_SHARES = {"name": 0.42, "tag": 0.18, "kind": 0.12, "wider": 0.05, "colour": 0.1, "caption": 0.13}
_TEMPLATE_WEIGHTS = (4, 4, 2, 1, 1)


@dataclass(frozen=True)
class ImageTexts:
    """All bare texts (no template) of one image, by kind."""

    by_kind: dict[str, list[str]]

    def draw(self, rng: random.Random) -> str:
        """Draw one bare text."""
        kind = rng.choices(list(_SHARES), list(_SHARES.values()))[0]
        options = self.by_kind.get(kind) or self.by_kind["name"]
        return rng.choice(options)


def image_texts(concept: EmojiConcept, colour: str | None) -> ImageTexts:
    """Collect the texts of one image."""
    kind, wider = KINDS[concept.subgroup]
    name = plain_words(concept.name)
    by_kind = {
        "name": [name],
        "tag": [word for tag in concept.tags if (word := plain_words(tag))],
        "kind": [kind],
        "wider": [wider],
        "caption": [caption(concept.name, concept.subgroup, colour)],
    }
    if colour:
        by_kind["colour"] = [f"{colour} {kind}", f"{colour} {wider}", f"something {colour}"]
        if colour not in name.split():
            by_kind["colour"].append(f"{colour} {name}")
    return ImageTexts(by_kind)


def draw_template(rng: random.Random, text: str) -> str:
    """Put a bare text into one of the templates."""
    return rng.choices(TEMPLATES, _TEMPLATE_WEIGHTS)[0].format(text)


class TextTable:
    """Texts of every raster, and which texts hold for which image.

    Attributes:
        images: one ImageTexts per raster.
        captions: one training caption per raster.
    """

    def __init__(self, rasters: Rasters) -> None:
        concepts = load_concepts()
        self.images = [image_texts(concepts[row["concept"]], row["colour"]) for row in rasters.rows]
        self.captions = [texts.by_kind["caption"][0] for texts in self.images]
        self._sets = [
            frozenset(t for options in texts.by_kind.values() for t in options)
            for texts in self.images
        ]

    def holds(self, index: list[int], texts: list[str]) -> torch.Tensor:
        """Bool ``(images, texts)``: does the text describe the image?"""
        return torch.tensor([[text in self._sets[image] for text in texts] for image in index])

    def corpus(self) -> list[str]:
        """Every distinct text, for training tokenizers."""
        return sorted(text for text in frozenset().union(*self._sets) if text)


class TextTokens:
    """Token ids of texts, padded to the pipeline's fixed length, each computed once."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, torch.Tensor] = {}

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Return ids ``(texts, MAX_TOKENS)``."""
        for text in texts:
            if text not in self._known:
                ids = self._tokenizer(
                    text, padding="max_length", truncation=True, max_length=MAX_TOKENS
                ).input_ids
                self._known[text] = torch.tensor(ids)
        return torch.stack([self._known[text] for text in texts])
