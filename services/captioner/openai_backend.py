"""A vision-language model behind an OpenAI-compatible API (`dnd.serving.remote_chat`).

It is asked for the caption of one picture, or for labels of what the tiles of one montage have in
common. Temperature is 0 and the seed fixed; whether the answers repeat is up to the API.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image

from dnd.errors import BadAnswer, DndError
from dnd.profiles import CaptionSettings
from dnd.serving import Metrics
from dnd.serving.answers import Dropped, parse_caption, parse_labels
from dnd.serving.remote_chat import ChatAnswer, RemoteCall, RemoteChat, RemoteModel
from dnd.types import ModelInfo, OrError, RequestContext
from dnd_services.captioner.model import CHAT_PROMPT

MAX_SIDE = 1024
"""Larger pictures are shrunk to that many pixels: such models shrink them anyway."""

JPEG_QUALITY = 90
LABEL_TOKENS = 16
"""Room for one label of five words."""

LABELS_PROMPT = (
    "The tiles of this montage are pictures that have something in common. Propose {num} different "
    "short labels for it, one on each line, one to five words each. Think of the object, a part of "
    "it, its texture or pattern, its colour and the scene around it. Each label must fit most of "
    "the tiles, not necessarily all. Write the labels alone: no numbers, no explanations."
)


class RemoteCaptioner:
    """As `CaptionModel`; a picture is prepared as the URL that carries it.

    Args:
        remote: Which model, and where.
        prompt: What it is asked for a caption; empty for `CHAT_PROMPT`.
        metrics: Where calls are counted, as items.

    Raises:
        BadSetting: The model has no name.
    """

    def __init__(self, remote: RemoteModel, prompt: str, metrics: Metrics) -> None:
        self._chat = RemoteChat(remote, metrics)
        self._prompt = prompt or CHAT_PROMPT

    @property
    def info(self) -> ModelInfo:
        return self._chat.info

    def prepare(self, image: Image.Image) -> str:
        """A data URL with the picture as JPEG."""
        shown = image.copy()
        shown.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        shown.save(buffer, "JPEG", quality=JPEG_QUALITY)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

    async def caption(
        self,
        items: Sequence[OrError[str]],
        settings: CaptionSettings,
        *,
        context: RequestContext,
        timeout_s: float | None,
    ) -> list[OrError[str]]:
        """`settings.min_length` and `num_beams` mean nothing to an API."""
        answers = await self._ask(items, self._prompt, settings.max_new_tokens, timeout_s)
        return [one if isinstance(one, DndError) else _read_caption(one) for one in answers]

    async def label(
        self,
        items: Sequence[OrError[str]],
        num_labels: int,
        *,
        context: RequestContext,
        timeout_s: float | None,
    ) -> list[OrError[tuple[str, ...]]]:
        prompt = LABELS_PROMPT.format(num=num_labels)
        answers = await self._ask(items, prompt, LABEL_TOKENS * num_labels, timeout_s)
        return [
            one if isinstance(one, DndError) else _read_labels(one, num_labels, prompt)
            for one in answers
        ]

    async def close(self) -> None:
        await self._chat.close()

    async def _ask(
        self, items: Sequence[OrError[str]], prompt: str, max_tokens: int, timeout_s: float | None
    ) -> list[OrError[ChatAnswer]]:
        """One call for each good picture; errors pass through."""
        calls = [_call(item, prompt, max_tokens) for item in items if isinstance(item, str)]
        answers = iter(await self._chat.complete(calls, timeout_s=timeout_s))
        return [item if isinstance(item, DndError) else next(answers) for item in items]


def _call(url: str, prompt: str, max_tokens: int) -> RemoteCall:
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": prompt},
    ]
    return RemoteCall(({"role": "user", "content": content},), 0.0, max_tokens, seed=0)


def _read_caption(answer: ChatAnswer) -> OrError[str]:
    return parse_caption(answer.text) or _no_use("caption", answer)


def _read_labels(answer: ChatAnswer, num_labels: int, prompt: str) -> OrError[tuple[str, ...]]:
    labels = parse_labels(answer.text, finished=answer.finished, instructions=prompt)
    kept = dict.fromkeys(label for label in labels if not isinstance(label, Dropped))
    return tuple(kept)[:num_labels] or _no_use("label", answer)


def _no_use(what: str, answer: ChatAnswer) -> BadAnswer:
    said = " ".join(answer.text.split())[:80]
    return BadAnswer(
        f"The captioner's model answered {said!r} to this picture: no {what} in it. A model that "
        "thinks before it answers needs DND_ANSWER_TOKENS."
    )
