"""Which pictures of a unit are kept, and in which order.

Activations are rounded to four significant digits before they are compared, so that a near-tie does
not depend on the size of a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dnd.profiles import ExemplarSettings
from dnd.rounding import round_value
from dnd.types import Exemplar

NUM_DIGITS = 4
NUM_DECILES = 10


@dataclass(frozen=True)
class Candidate:
    """A picture that may become an exemplar of a unit.

    Attributes:
        image: Number of its source image in the manifest.
        place: 0 for the whole image, then its crops, largest first.
        exemplar: What it would be.
    """

    image: int
    place: int
    exemplar: Exemplar


def rank_candidates(
    candidates: Sequence[Candidate], settings: ExemplarSettings
) -> tuple[Exemplar, ...]:
    """The exemplars, highest activation first, at most `max_per_source` from one source image.

    Among equals: the lower image number, then the whole image, then the larger crop.
    """
    ordered = sorted(
        candidates,
        key=lambda c: (-round_value(c.exemplar.activation, NUM_DIGITS), c.image, c.place),
    )
    taken: Counter[int] = Counter()
    kept: list[Exemplar] = []
    for candidate in ordered:
        if settings.max_per_source and taken[candidate.image] >= settings.max_per_source:
            continue
        taken[candidate.image] += 1
        kept.append(candidate.exemplar)
    return tuple(kept[: settings.num_exemplars])


def pick_deciles(
    values: np.ndarray, images: np.ndarray, num_per_decile: int
) -> list[tuple[int, int, float]]:
    """Images across the tenths of a sample, for the report.

    Args:
        values: The unit's activations on the sample, (images,).
        images: Numbers of the sample's images, (images,).
        num_per_decile: Images of each tenth at most.

    Returns:
        Decile, image number and activation, lowest decile first and ascending within it. Within a
        tenth, images of the lowest numbers are taken: numbers follow digests, so this is a draw.
    """
    order = np.argsort(values, kind="stable")
    picked: list[tuple[int, int, float]] = []
    for decile in range(NUM_DECILES):
        low, high = (len(order) * tenth // NUM_DECILES for tenth in (decile, decile + 1))
        drawn = sorted((int(images[row]), float(values[row])) for row in order[low:high])
        picked += sorted(
            ((decile, image, value) for image, value in drawn[:num_per_decile]),
            key=lambda one: (one[2], one[1]),
        )
    return picked
