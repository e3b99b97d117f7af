"""What the servicer needs of a model that captions, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from PIL import Image

from dnd.profiles import CaptionSettings
from dnd.types import ModelInfo, OrError, RequestContext

CHAT_PROMPT = "Say in one short sentence what this picture shows."
"""What a model that takes questions is asked when no prompt is set."""

P = TypeVar("P")


class CaptionModel(Protocol[P]):
    """A model that captions pictures; `P` is what it makes of one before it is asked."""

    @property
    def info(self) -> ModelInfo: ...

    def prepare(self, image: Image.Image) -> P:
        """The model's input for one RGB picture, in any thread. Raises BadImage."""
        ...

    async def caption(
        self,
        items: Sequence[OrError[P]],
        settings: CaptionSettings,
        *,
        context: RequestContext,
        timeout_s: float | None,
    ) -> list[OrError[str]]:
        """The caption of each picture, or why there is none, in order; errors pass through.

        Raises:
            Overloaded, RequestTooLarge, Unavailable: Nothing was asked.
        """
        ...

    async def label(
        self,
        items: Sequence[OrError[P]],
        num_labels: int,
        *,
        context: RequestContext,
        timeout_s: float | None,
    ) -> list[OrError[tuple[str, ...]]]:
        """Labels of what the tiles of each montage have in common, 1 to `num_labels` of them.

        Raises:
            FailedPrecondition: The model takes no questions.
            Overloaded, RequestTooLarge, Unavailable: Nothing was asked.
        """
        ...

    async def close(self) -> None:
        """Ends what the model runs."""
        ...
