"""Values that fakes make up: the same for the same inputs, on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from dnd.images import encode_png
from dnd.keys import digest_of

_WORDS = (
    "apple banana bird boat bridge cat cloud crown dog door drum fence fish flag flower forest "
    "grass guitar hat horse house kite lamp leaf moon mountain net pillow rain river road rope "
    "sand shell ship snow stone stripe sun tower tree wall water wheel window wing wolf wood"
)
WORDS = tuple(_WORDS.split())


def number(*parts: Any) -> int:
    """A 63-bit number that follows from `parts`."""
    return int(digest_of(*parts)[:16], 16) >> 1


def pick_word(*parts: Any) -> str:
    """A word that follows from `parts`."""
    return WORDS[number("word", *parts) % len(WORDS)]


def draw_picture(side: int, *parts: Any) -> bytes:
    """A PNG of coloured squares that follow from `parts`."""
    generator = np.random.default_rng(number("picture", *parts))
    squares = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return encode_png(Image.fromarray(squares).resize((side, side), Image.Resampling.NEAREST))


def draw_vector(size: int, *parts: Any) -> np.ndarray:
    """A float32 vector (size,) of normal numbers that follow from `parts`."""
    generator = np.random.default_rng(number("vector", *parts))
    return generator.standard_normal(size).astype(np.float32)


def embed(*parts: Any) -> np.ndarray:
    """A unit vector (16,) that follows from `parts`."""
    vector = draw_vector(16, *parts).astype(np.float64)
    return np.asarray(vector / np.linalg.norm(vector))
