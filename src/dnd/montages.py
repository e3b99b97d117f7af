"""What a vision-language model names in the exemplars of a unit, shown to it as one picture.

`dnd.stages.caption_exemplars` asks for it beside the captions, where the profile says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from dnd.artifacts import ArtifactStore
from dnd.chunks import chunks
from dnd.clients import Services
from dnd.errors import DndError, TooFewResults
from dnd.images import decode_image, encode_png, make_montage
from dnd.profiles import CaptionSettings
from dnd.types import OrError, UnitExemplars

MONTAGES_PER_CALL = 16
"""What one call carries, so that it ends well within its deadline."""

TILE_PIXELS = 256
"""Side of an exemplar in a montage."""


def label_exemplars(
    services: Services,
    settings: CaptionSettings,
    parts: Sequence[UnitExemplars],
    captioner_digest: str,
) -> list[OrError[tuple[str, ...]]]:
    """Labels of what the exemplars of each have in common; none where the settings ask for none."""
    if not settings.num_labels:
        return [()] * len(parts)
    montages = [_put_montage(services.artifacts, part) for part in parts]
    answers: dict[str, OrError[tuple[str, ...]]] = {}
    for chunk in chunks([one for one in montages if isinstance(one, str)], MONTAGES_PER_CALL):
        found = services.captioner.label_montages(
            chunk, settings.num_labels, settings, captioner_digest
        )
        answers.update(zip(chunk, found, strict=True))
    return [one if isinstance(one, DndError) else answers[one] for one in montages]


def _put_montage(artifacts: ArtifactStore, part: UnitExemplars) -> OrError[str]:
    """Reference of the exemplars in one picture, row by row, highest activation first."""
    if not part.exemplars:
        return TooFewResults("There are no exemplars to name.")
    try:
        pictures = [decode_image(artifacts.get_bytes(e.image)) for e in part.exemplars]
        return artifacts.put_bytes(encode_png(make_montage(pictures, TILE_PIXELS)))
    except DndError as error:
        return error
