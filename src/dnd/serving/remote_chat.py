"""A language model behind an OpenAI-compatible API: OpenAI, vLLM, llama.cpp, Ollama, …

What the summarizer and a captioner that asks a vision-language model have in common.

Every call is made once: who retries is the coordinator. So what goes wrong is sorted by who must
act. The key, the account or the model's name are wrong: nothing will succeed until an operator
acts. The API is slow, busy or down: the same call may succeed later. Something else came back than
an answer: that call is spent, and the unit goes on with its other calls. Once a call of a batch
fails in one of the first two ways, the calls of that batch that were not yet made are not made.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dnd import logs
from dnd.errors import (
    BadAnswer,
    BadSetting,
    DeadlineExceeded,
    DndError,
    InvalidInput,
    Kind,
    LlmRateLimited,
    LlmRefused,
    LlmUnavailable,
    Overloaded,
    RequestTooLarge,
    kind_of,
)
from dnd.serving.metrics import Metrics
from dnd.settings import REMOTE, RemoteModelSettings
from dnd.types import ModelInfo, OrError

OPENAI_URL = "https://api.openai.com/v1"

_SEED_BITS = 31
"""Of a seed that every server takes."""

_NO_KEY = "none"

# Codes in the body of a 400 or 429 that no other request of ours would get past either.
_OPERATOR_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "account_deactivated",
        "invalid_api_key",
        "model_not_found",
    }
)
# Codes of what this model does not take in any call: a temperature of its own, for example.
_SETTING_CODES = frozenset({"unsupported_parameter", "unsupported_value"})


@dataclass(frozen=True)
class RemoteModel:
    """Which model, where, and how it may be used.

    Attributes:
        name: Name of the model in the API.
        base_url: Root of the API; empty for OpenAI's own.
        key: Key of the API; empty for none.
        max_calls: Calls at the same time.
        max_queue: Calls admitted and not yet answered.
        timeout_s: Time for one call, seconds.
        answer_tokens: Tokens of an answer at most; 0 for the limit of the call.
    """

    name: str
    base_url: str = ""
    key: str = field(default="", repr=False)
    max_calls: int = 8
    max_queue: int = 4096
    timeout_s: float = 60.0
    answer_tokens: int = 0

    @classmethod
    def of(cls, settings: RemoteModelSettings) -> RemoteModel:
        """The model that `settings` name. Raises BadSetting."""
        return cls(
            name=settings.model.removeprefix(REMOTE),
            base_url=settings.base_url,
            key=read_key(settings.api_key_file),
            max_calls=settings.max_calls,
            max_queue=settings.max_queue,
            timeout_s=settings.call_timeout_s,
            answer_tokens=settings.answer_tokens,
        )


@dataclass(frozen=True)
class RemoteCall:
    """One call of the API.

    Attributes:
        messages: The chat so far, as the API takes it.
        temperature: Sampling temperature; 0 takes the likeliest token.
        max_tokens: Tokens of the answer at most.
        seed: Seed of the sampling, >= 0.
    """

    messages: tuple[Mapping[str, Any], ...]
    temperature: float
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class ChatAnswer:
    """What a language model answered, and what it cost.

    Attributes:
        text: The answer.
        num_input_tokens: Tokens of the prompt.
        num_output_tokens: Tokens of the answer.
        finished: False where the limit of tokens cut it off.
    """

    text: str
    num_input_tokens: int
    num_output_tokens: int
    finished: bool = True


def read_key(path: str) -> str:
    """The key in the file `path`; empty for no path. Raises BadSetting."""
    if not path:
        return ""
    try:
        key = Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(
            f"DND_API_KEY_FILE = {path!r} cannot be read: {type(error).__name__}: expected a text "
            "file with the key of the API."
        ) from None
    if not key.isascii() or not key.isprintable() or len(key.split()) != 1:
        raise BadSetting(f"DND_API_KEY_FILE = {path!r}: expected one key, on one line.")
    logs.hide(key)
    return key


class RemoteChat:
    """Answers chats through an API.

    Args:
        remote: Which model, and where.
        metrics: Where calls are counted, as items.

    Raises:
        BadSetting: The model has no name, or the client of such APIs is not installed.
    """

    def __init__(self, remote: RemoteModel, metrics: Metrics) -> None:
        if not remote.name:
            raise BadSetting("DND_MODEL = 'openai:': expected the model's name after the colon.")
        # `dnd` installs without openai, so nothing here names it in an import statement.
        try:
            self._openai: Any = importlib.import_module("openai")
        except ImportError:
            raise BadSetting(
                f"DND_MODEL = '{REMOTE}{remote.name}' needs the package openai, which is not "
                "installed: install the extra summarizer or captioner-remote."
            ) from None
        self.info = ModelInfo(name=f"openai:{remote.name}", architecture="chat", device="remote")
        for name in ("httpx", "httpx2"):
            logging.getLogger(name).setLevel(logging.WARNING)  # a line for each call otherwise
        self._remote = remote
        self._metrics = metrics
        self._slots = asyncio.Semaphore(remote.max_calls)
        self._num_admitted = 0
        self._client = self._openai.AsyncOpenAI(
            api_key=remote.key or _NO_KEY,
            base_url=remote.base_url or OPENAI_URL,
            max_retries=0,
            timeout=remote.timeout_s,
        )

    async def complete(
        self, calls: Sequence[RemoteCall], *, timeout_s: float | None
    ) -> list[OrError[ChatAnswer]]:
        """The answer of each call, or why there is none, in order.

        Args:
            timeout_s: The caller's time for all of them, seconds; None without a limit.

        Raises:
            Overloaded, RequestTooLarge: Nothing was asked.
        """
        self._admit(len(calls))
        batch = _Batch()
        now = asyncio.get_running_loop().time()
        until = None if timeout_s is None else now + timeout_s
        tasks = [asyncio.create_task(self._answer(call, batch, until)) for call in calls]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            self._num_admitted -= len(calls)
            self._metrics.queued.set(self._num_admitted)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    def _admit(self, num: int) -> None:
        limit = self._remote.max_queue
        if num > limit:
            raise RequestTooLarge(
                f"The request takes {num} calls: this server admits at most {limit}."
            )
        if self._num_admitted + num > limit:
            self._metrics.refused.inc(num)
            raise Overloaded(
                f"{self._num_admitted} calls are waiting: try again later.", retry_after_s=2.0
            )
        self._num_admitted += num
        self._metrics.queued.set(self._num_admitted)

    async def _answer(
        self, call: RemoteCall, batch: _Batch, until: float | None
    ) -> OrError[ChatAnswer]:
        loop = asyncio.get_running_loop()
        async with self._slots:
            left_s = self._remote.timeout_s if until is None else until - loop.time()
            if batch.stopped is not None:
                return batch.stopped
            if left_s <= 0:
                return DeadlineExceeded("The caller's time was over before this call was made.")
            started = loop.time()
            try:
                # The client's own limit is one for each read, not for the whole call.
                async with asyncio.timeout(min(left_s, self._remote.timeout_s)):
                    answer: OrError[ChatAnswer] = await self._call(call)
            except TimeoutError:
                answer = _too_slow(loop.time() - started, self._remote)
            self._metrics.items.inc()
            self._metrics.batch_items.observe(1)
            self._metrics.batch_seconds.observe(loop.time() - started)
        if isinstance(answer, DndError) and kind_of(answer) is not Kind.ITEM:
            batch.stopped = answer
        return answer

    async def _call(self, call: RemoteCall) -> OrError[ChatAnswer]:
        limit = self._remote.answer_tokens or call.max_tokens
        # OpenAI's models want the new name of the limit, many other servers know the old one only.
        limit_name = "max_tokens" if self._remote.base_url else "max_completion_tokens"
        request: dict[str, Any] = {
            "model": self._remote.name,
            "messages": list(call.messages),
            "temperature": call.temperature,
            "seed": call.seed % 2**_SEED_BITS,
            limit_name: limit,
        }
        try:
            reply: Any = await self._client.chat.completions.create(**request)
        except self._openai.APIError as error:
            return _error_of(self._openai, error, self._remote)
        except ValueError:
            return _no_completion(self._remote)
        return _read(reply, self._remote)


@dataclass
class _Batch:
    """What the calls of one `complete` share: why no more of them are made."""

    stopped: DndError | None = None


def _read(reply: Any, remote: RemoteModel) -> OrError[ChatAnswer]:
    """The answer in a reply. A refusal or an empty answer is one too: it has been paid for."""
    try:
        usage = getattr(reply, "usage", None)
        num_input = int(getattr(usage, "prompt_tokens", 0) or 0)
        num_output = int(getattr(usage, "completion_tokens", 0) or 0)
        choices = reply.choices or []
        if not choices:
            return ChatAnswer("", num_input, num_output)
        message = choices[0].message
        text = message.content or getattr(message, "refusal", None) or ""
        finished = choices[0].finish_reason != "length"
        return ChatAnswer(str(text), num_input, num_output, finished)
    except (AttributeError, TypeError, ValueError, LookupError):
        return _no_completion(remote)


def _error_of(openai: Any, error: Any, remote: RemoteModel) -> DndError:
    """Who must act on what the client raised."""
    where = f"model {remote.name!r} at {remote.base_url or OPENAI_URL}"
    if isinstance(error, openai.APITimeoutError):
        return _too_slow(remote.timeout_s, remote)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        return LlmUnavailable(
            f"The language model cannot be reached ({where}): {type(cause).__name__}: "
            f"{_quote(str(cause), remote)}. Is its server up, and DND_BASE_URL right?"
        )
    if not isinstance(error, openai.APIStatusError):
        return _no_completion(remote)
    status, said = error.status_code, _quote(error.message, remote)
    answered = f"The language model's API answered {status} ({where}): {said}."
    if status in (401, 403):
        return LlmRefused(f"{answered} Put a valid key into DND_API_KEY_FILE and restart.")
    if status == 404:
        return LlmRefused(f"{answered} Correct the name in DND_MODEL, or DND_BASE_URL.")
    if error.code in _OPERATOR_CODES:
        return LlmRefused(f"{answered} Correct DND_MODEL, or see to the account of the key.")
    if error.code in _SETTING_CODES:
        return LlmRefused(f"{answered} Name another model in DND_MODEL, or change that setting.")
    if status == 429:
        return LlmRateLimited(
            f"{answered} Lower DND_MAX_CALLS if this goes on.", retry_after_s=_retry_after_s(error)
        )
    if status in (408, 409) or status >= 500:
        return LlmUnavailable(answered, retry_after_s=_retry_after_s(error))
    return InvalidInput(f"{answered} The API does not take this request.")


def _too_slow(waited_s: float, remote: RemoteModel) -> DndError:
    return LlmUnavailable(
        f"The language model {remote.name!r} at {remote.base_url or OPENAI_URL} did not answer "
        f"within {waited_s:.1f} s (DND_CALL_TIMEOUT_S = {remote.timeout_s:g})."
    )


def _no_completion(remote: RemoteModel) -> DndError:
    return BadAnswer(
        f"What came from {remote.base_url or OPENAI_URL} is no chat completion: is DND_BASE_URL "
        "the root of the API? It often ends in /v1."
    )


def _quote(text: str, remote: RemoteModel) -> str:
    """What the API said, on one line, cut, and without the key."""
    if remote.key:
        text = text.replace(remote.key, "[key]")
    return " ".join(text.split())[:300].rstrip(".") or "nothing"


def _retry_after_s(error: Any) -> float | None:
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "")))
    except ValueError:
        return None
