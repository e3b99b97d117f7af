"""From a picture to what a network sees, and from a place in what it sees back to the picture.

The usual chain of image networks: scale, cut out the middle, normalise. Because the chain is data,
a region found in the network's input can be mapped back to pixels of the source image: the network
sees 224 of 256 pixels, and a map of its activations covers these only.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from dnd.errors import InvalidInput
from dnd.types import Box

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
_MAX_SCALED_PIXELS = 16_000_000


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input.

    Attributes:
        size: Height and width of the input, pixels.
        shortest_edge: The picture is scaled, aspect kept, until its shorter side has this many
            pixels, then the middle `size` is cut out. None: squashed to `size`, nothing cut off.
        mean: Subtracted from each channel after `scale`.
        std: Each channel is divided by it after that.
        scale: Bytes are multiplied by it first: 1/255 for 0..1, 1 for 0..255.
        resample: "bilinear", "bicubic", "nearest", "lanczos" or "box".
    """

    size: tuple[int, int] = (224, 224)
    shortest_edge: int | None = 256
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    scale: float = 1 / 255
    resample: str = "bilinear"

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise InvalidInput(f"Preprocessing.size = {self.size}: expected height and width >= 1.")
        if self.shortest_edge is not None and self.shortest_edge < max(self.size):
            raise InvalidInput(
                f"Preprocessing.shortest_edge = {self.shortest_edge} is smaller than what is cut "
                f"out, {self.size}: expected at least {max(self.size)}, or None to squash."
            )
        if self.resample not in _FILTERS:
            raise InvalidInput(
                f"Preprocessing.resample = {self.resample!r}: expected {', '.join(_FILTERS)}."
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise InvalidInput("Preprocessing: expected three means and three stds above 0.")

    def describe(self) -> dict[str, Any]:
        """What the digest of a model says about its preprocessing."""
        return asdict(self)

    def prepare(self, image: Image.Image) -> np.ndarray:
        """The part of an RGB picture that the network sees, (height, width, 3) uint8."""
        height, width = self.size
        resample = _FILTERS[self.resample]
        if self.shortest_edge is None:
            return np.asarray(image.resize((width, height), resample))
        scaled = self._scaled_size(*image.size)
        if scaled[0] * scaled[1] > _MAX_SCALED_PIXELS:
            # A very long strip: only the middle is scaled, which differs at its rim by a rounding.
            return np.asarray(
                image.resize((width, height), resample, box=self.seen_region(*image.size))
            )
        left, top = self._corner(scaled)
        return np.asarray(image.resize(scaled, resample))[top : top + height, left : left + width]

    def seen_region(self, width: int, height: int) -> tuple[float, float, float, float]:
        """What the network sees of a `width` x `height` picture: x0, y0, x1, y1 in its pixels."""
        if self.shortest_edge is None:
            return (0.0, 0.0, float(width), float(height))
        scaled = self._scaled_size(width, height)
        left, top = self._corner(scaled)
        x_scale, y_scale = width / scaled[0], height / scaled[1]
        return (
            left * x_scale,
            top * y_scale,
            (left + self.size[1]) * x_scale,
            (top + self.size[0]) * y_scale,
        )

    def to_source(self, box: Box, width: int, height: int) -> Box:
        """A region of the network's input as the smallest region of whole source pixels around it.

        Args:
            box: Pixels of the input.
            width: Of the source picture, pixels.
            height: Of the source picture, pixels.
        """
        x0, y0, x1, y1 = self.seen_region(width, height)
        x_scale, y_scale = (x1 - x0) / self.size[1], (y1 - y0) / self.size[0]
        left = min(_floor(x0 + box.x0 * x_scale), width - 1)
        top = min(_floor(y0 + box.y0 * y_scale), height - 1)
        return Box(
            left,
            top,
            max(left + 1, min(_ceil(x0 + box.x1 * x_scale), width)),
            max(top + 1, min(_ceil(y0 + box.y1 * y_scale), height)),
        )

    def _scaled_size(self, width: int, height: int) -> tuple[int, int]:
        assert self.shortest_edge is not None
        short = min(width, height)
        longer = int(self.shortest_edge * max(width, height) / short)
        return (self.shortest_edge, longer) if width <= height else (longer, self.shortest_edge)

    def _corner(self, scaled: tuple[int, int]) -> tuple[int, int]:
        return (scaled[0] - self.size[1]) // 2, (scaled[1] - self.size[0]) // 2


# A product such as 3 * (100 / 300) must not push an edge over to the next pixel.
_NEAR = 1e-6


def _floor(value: float) -> int:
    return max(0, math.floor(value + _NEAR))


def _ceil(value: float) -> int:
    return math.ceil(value - _NEAR)
