"""What the summarizer needs of a language model, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from dnd.serving.remote_chat import ChatAnswer
from dnd.types import ModelInfo, OrError, RequestContext

__all__ = ["ChatAnswer", "ChatCall", "ChatModel", "Message", "Role"]

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True)
class ChatCall:
    """One call of a language model.

    Attributes:
        messages: The chat so far; the model answers.
        num_shared: The leading messages that all calls of this prompt have in common (instructions
            and worked examples): a local model computes them once.
        temperature: Sampling temperature; 0 takes the likeliest token.
        max_tokens: Tokens of the answer at most.
        seed: Seed of this call's sampling, 63 bits.
        one_line: Whether only the first line of the answer is read: a local model stops there.
    """

    messages: tuple[Message, ...]
    num_shared: int
    temperature: float
    max_tokens: int
    seed: int
    one_line: bool = True


class ChatModel(Protocol):
    """A language model that answers chats."""

    @property
    def info(self) -> ModelInfo: ...

    async def complete(
        self, calls: Sequence[ChatCall], *, context: RequestContext, timeout_s: float | None
    ) -> list[OrError[ChatAnswer]]:
        """The answer of each call, or why there is none, in order.

        Raises:
            Overloaded, RequestTooLarge, Unavailable: Nothing was asked.
        """
        ...

    async def close(self) -> None:
        """Ends what the model runs."""
        ...
