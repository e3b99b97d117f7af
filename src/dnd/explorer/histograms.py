"""How often a unit is how active: bars of a plot, and what lies where on its axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dnd.report.scale import Scale

NUM_BARS = 56


@dataclass(frozen=True)
class Bar:
    """`left`, `width` and `height` are per cent of the plot; `title` is for people."""

    left: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Histogram:
    """Bars whose heights follow the logarithm of counts, so that rare peaks are seen.

    Attributes:
        exemplars: Where the exemplars lie on the axis, per cent.
        drawings: Where the drawings of the label lie, per cent.
        low: Lowest value of the axis, as text.
        high: Highest value.
        num_images: Images that were counted.
    """

    bars: tuple[Bar, ...]
    exemplars: tuple[float, ...]
    drawings: tuple[float, ...]
    low: str
    high: str
    num_images: int


def make_histogram(
    values: np.ndarray, exemplars: Sequence[float], drawings: Sequence[float]
) -> Histogram | None:
    """The histogram of a unit's activations; None where there is nothing to show.

    Args:
        values: Activations on probe images, (images,) floats.
        exemplars: Activations on the exemplars.
        drawings: Activations on drawings of the label.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    everything = [float(values.min()), float(values.max()), *exemplars, *drawings]
    low, high = min(everything), max(everything)
    if high <= low:
        return None
    counts, edges = np.histogram(values, NUM_BARS, (low, high))
    scale = Scale(low, high)
    heights = np.log1p(counts) / np.log1p(counts.max())
    step = 100 / NUM_BARS
    bars = tuple(
        Bar(
            left=number * step,
            width=step,
            height=100 * float(height),
            title=f"{count:,} {'image' if count == 1 else 'images'} from "
            f"{scale.text(edges[number])} to {scale.text(edges[number + 1])}",
        )
        for number, (count, height) in enumerate(zip(counts, heights, strict=True))
        if count
    )

    def place(found: Sequence[float]) -> tuple[float, ...]:
        return tuple(100 * scale.fraction(value) for value in found)

    return Histogram(
        bars, place(exemplars), place(drawings), scale.text(low), scale.text(high), len(values)
    )
