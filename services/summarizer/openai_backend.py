"""The summarizer's language model behind an OpenAI-compatible API (`dnd.serving.remote_chat`)."""

from __future__ import annotations

from collections.abc import Sequence

from dnd.serving import Metrics
from dnd.serving.remote_chat import ChatAnswer, RemoteCall, RemoteChat, RemoteModel
from dnd.types import ModelInfo, OrError, RequestContext
from dnd_services.summarizer.llm import ChatCall


class RemoteChatModel:
    """Answers the summarizer's chats through an API.

    Args:
        remote: Which model, and where.
        metrics: Where calls are counted, as items.

    Raises:
        BadSetting: The model has no name.
    """

    def __init__(self, remote: RemoteModel, metrics: Metrics) -> None:
        self._chat = RemoteChat(remote, metrics)

    @property
    def info(self) -> ModelInfo:
        return self._chat.info

    async def complete(
        self, calls: Sequence[ChatCall], *, context: RequestContext, timeout_s: float | None
    ) -> list[OrError[ChatAnswer]]:
        """As `ChatModel.complete`."""
        return await self._chat.complete([_to_remote(call) for call in calls], timeout_s=timeout_s)

    async def close(self) -> None:
        """Closes the connections."""
        await self._chat.close()


def _to_remote(call: ChatCall) -> RemoteCall:
    messages = tuple({"role": one.role, "content": one.content} for one in call.messages)
    return RemoteCall(messages, call.temperature, call.max_tokens, call.seed)
