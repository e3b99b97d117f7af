"""What came of trying a picture or words on the units of a job.

Field names equal those of the messages in protos/dnd/v1/coordinator.proto, where units and ranges
are written down.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExcitedUnit:
    """A labelled unit that a picture excites.

    Attributes:
        share: Of the probe images that excite it less, 0 to 1.
        weakest_exemplar: Lowest activation of its exemplars; None where it has none.
        strongest_exemplar: Highest activation of its exemplars; None where it has none.
        exemplar_level: The activation on a scale where the mean of the probe images is 0 and that
            of the unit's exemplars 1; None where it has none.
        map: WebP: the picture, bright where covering it lowers the activation most.
    """

    layer: str
    unit: int
    label: str
    activation: float
    share: float
    weakest_exemplar: float | None
    strongest_exemplar: float | None
    exemplar_level: float | None
    map: bytes


@dataclass(frozen=True)
class MeasuredImage:
    """An encoded WebP image and a unit's activation on it."""

    image: bytes
    activation: float


@dataclass(frozen=True)
class TriedWords:
    """Drawings of words beside a unit's exemplars, both most activating first.

    Attributes:
        words: As they were drawn.
        num_above: Drawings that excite the unit at least as much as its weakest exemplar.
    """

    words: str
    drawings: tuple[MeasuredImage, ...]
    exemplars: tuple[MeasuredImage, ...]
    num_above: int
