"""The API backend against a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai_api import Api, completion, failure, serve_api, without_proxy
from unit.summarizer.conftest import CONTEXT

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
from dnd.profiles import ProposeSettings
from dnd.serving import Metrics
from dnd.serving.remote_chat import RemoteModel, read_key
from dnd.types import OrError, Proposal, UnitCaptions
from dnd_services.summarizer.llm import ChatAnswer, ChatCall, Message
from dnd_services.summarizer.openai_backend import RemoteChatModel
from dnd_services.summarizer.prompting import PromptSets
from dnd_services.summarizer.proposing import Proposer

KEY = "sk-test-0123456789"


@pytest_asyncio.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    without_proxy(monkeypatch)
    async with serve_api() as running:
        yield running


def call(text: str = "Captions:\n1. a lake\nLabel:", seed: int = 2**40 + 3) -> ChatCall:
    return ChatCall((Message("system", "Be short."), Message("user", text)), 1, 0.8, 10, seed)


async def ask(
    url: str,
    *calls: ChatCall,
    timeout_s: float | None = None,
    call_timeout_s: float = 30.0,
    **options: Any,
) -> list[OrError[ChatAnswer]]:
    remote = RemoteModel("tiny", url, KEY, timeout_s=call_timeout_s, **options)
    model = RemoteChatModel(remote, Metrics())
    try:
        return await model.complete(calls or (call(),), context=CONTEXT, timeout_s=timeout_s)
    finally:
        await model.close()


async def fails(api: Api, **options: Any) -> DndError:
    (error,) = await ask(api.url, **options)
    assert isinstance(error, DndError)
    assert KEY not in error.message
    assert len(api.requests) <= 1, "a call is made once, whatever comes back"
    return error


async def test_call_and_answer_go_over_the_wire(api: Api) -> None:
    assert await ask(api.url) == [ChatAnswer("water", 50, 4)]
    ((path, headers, request),) = api.requests
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert request == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Captions:\n1. a lake\nLabel:"},
        ],
        "temperature": 0.8,
        "seed": 3,
        "max_tokens": 10,
    }


async def test_limit_of_an_answer_can_be_raised_for_models_that_think(api: Api) -> None:
    await ask(api.url, answer_tokens=500)
    assert api.requests[0][2]["max_tokens"] == 500


async def test_answers_come_in_order_and_few_at_a_time(api: Api) -> None:
    api.answer = lambda request: completion(request["messages"][-1]["content"])
    api.release.clear()
    asked = asyncio.create_task(ask(api.url, *(call(f"{n}") for n in range(7)), max_calls=3))
    while api.num_open < 3:
        assert not asked.done()
        await asyncio.sleep(0.01)
    api.release.set()
    answers = await asked
    assert [a.text for a in answers if isinstance(a, ChatAnswer)] == [f"{n}" for n in range(7)]
    assert (api.most_open, len(api.requests)) == (3, 7)


@pytest.mark.parametrize(
    ("status", "body", "expected", "hint"),
    [
        (401, failure(f"Incorrect API key: {KEY}", "invalid_api_key"), LlmRefused, "API_KEY_FILE"),
        (403, failure("Not for your country"), LlmRefused, "API_KEY_FILE"),
        (404, failure("The model does not exist", "model_not_found"), LlmRefused, "DND_MODEL"),
        (400, failure("No such model", "model_not_found"), LlmRefused, "DND_MODEL"),
        (429, failure("Quota is used up", "insufficient_quota"), LlmRefused, "account"),
        (400, failure("temperature: only 1", "unsupported_value"), LlmRefused, "only 1"),
        (400, failure("Prompt is too long", "context_length_exceeded"), InvalidInput, "too long"),
        (422, failure("no"), InvalidInput, "422"),
        (429, failure("Slow down"), LlmRateLimited, "DND_MAX_CALLS"),
        (500, failure("Oh no"), LlmUnavailable, "Oh no"),
        (503, b"<html>busy</html>", LlmUnavailable, "503"),
        (200, b"<html>welcome</html>", BadAnswer, "/v1"),
        (200, b"", BadAnswer, "/v1"),
        (200, [1, 2], BadAnswer, "/v1"),
        (200, {"choices": "many"}, BadAnswer, "/v1"),
    ],
)
async def test_failure_says_who_must_act(
    api: Api, status: int, body: object, expected: type[DndError], hint: str
) -> None:
    api.status, api.body = status, body
    api.kind = "text/html" if isinstance(body, bytes) else ""
    error = await fails(api)
    assert type(error) is expected
    assert hint in error.message


async def test_body_that_is_no_json_is_a_bad_answer(api: Api) -> None:
    for api.kind in ("application/json", "text/html"):
        api.body = b"{half a"
        assert type(await fails(api)) is BadAnswer
        api.requests.clear()


async def test_wait_that_the_api_asks_for_is_kept(api: Api) -> None:
    api.status, api.body, api.headers = 429, failure("Slow down"), {"Retry-After": "7"}
    assert (await fails(api)).retry_after_s == 7.0
    api.requests.clear()
    api.headers = {"Retry-After": "soon"}
    assert (await fails(api)).retry_after_s is None


async def test_slow_api_is_unavailable(api: Api) -> None:
    api.release.clear()
    (by_setting,) = await ask(api.url, call_timeout_s=0.2)
    (by_caller,) = await ask(api.url, timeout_s=0.2)
    for error in (by_setting, by_caller):
        assert isinstance(error, LlmUnavailable)
        assert "did not answer within" in error.message
    assert len(api.requests) == 2


async def test_closed_port_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        (error,) = await ask(url)
    assert isinstance(error, LlmUnavailable)
    assert url in error.message
    assert "DND_BASE_URL" in error.message


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({**completion("x"), "choices": []}, ChatAnswer("", 50, 4)),
        (completion(None), ChatAnswer("", 50, 4)),
        (completion("wat", finish="length"), ChatAnswer("wat", 50, 4, finished=False)),
        (completion("water", usage=None), ChatAnswer("water", 0, 0)),
    ],
)
async def test_answer_without_use_is_an_answer_that_was_paid_for(
    api: Api, body: object, expected: ChatAnswer
) -> None:
    api.body = body
    assert await ask(api.url) == [expected]


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_calls_that_would_fail_alike_are_not_made(api: Api, status: int) -> None:
    api.status, api.body = status, failure("no")
    errors = await ask(api.url, *(call(f"{n}") for n in range(20)), max_calls=2)
    assert len({id(error) for error in errors}) <= 2
    assert all(isinstance(e, DndError) and kind_of(e) is not Kind.ITEM for e in errors)
    assert len(api.requests) <= 2


async def test_calls_are_not_made_when_the_caller_has_no_time_left(api: Api) -> None:
    (error,) = await ask(api.url, timeout_s=0.0)
    assert isinstance(error, DeadlineExceeded)
    assert not api.requests


async def test_calls_beyond_the_queue_are_refused_and_room_comes_back(api: Api) -> None:
    api.release.clear()
    model = RemoteChatModel(RemoteModel("tiny", api.url, max_queue=3), Metrics())
    first = asyncio.create_task(model.complete([call()] * 2, context=CONTEXT, timeout_s=None))
    while api.num_open < 2:
        await asyncio.sleep(0.01)
    with pytest.raises(Overloaded) as caught:
        await model.complete([call()] * 2, context=CONTEXT, timeout_s=None)
    assert caught.value.retry_after_s
    with pytest.raises(RequestTooLarge, match="at most 3"):
        await model.complete([call()] * 4, context=CONTEXT, timeout_s=None)
    api.release.set()
    assert len(await first) == 2
    assert len(await model.complete([call()] * 3, context=CONTEXT, timeout_s=None)) == 3
    await model.close()


async def test_unit_goes_on_with_what_is_left_and_everything_is_counted(
    api: Api, prompts: PromptSets
) -> None:
    said = iter([completion("water"), {**completion(""), "choices": []}, completion("!?")] * 2)
    api.answer = lambda request: next(said)
    model = RemoteChatModel(RemoteModel("tiny", api.url), Metrics())
    settings = ProposeSettings(num_captions=0, num_phrases=0)
    proposer = Proposer(model, prompts.get("general"), settings, CONTEXT)
    (proposal,) = await proposer.propose([UnitCaptions(("a lake", "a sea"), seed=1)])
    assert isinstance(proposal, Proposal)
    assert [one.text for one in proposal.candidates] == ["water"]
    assert (proposal.tokens.num_calls, proposal.tokens.num_input_tokens) == (5, 250)
    api.answer = lambda request: completion("!?")
    (error,) = await proposer.propose([UnitCaptions(("a lake", "a sea"), seed=1)])
    assert isinstance(error, BadAnswer)
    await model.close()


def test_key_is_read_from_a_file_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    assert read_key(str(path)) == KEY
    assert read_key("") == ""
    assert KEY not in repr(RemoteModel("tiny", key=KEY))


@pytest.mark.parametrize("text", ["", "two keys", "clé", "one\ntwo"])
def test_file_that_is_no_key_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    with pytest.raises(BadSetting, match="expected one key"):
        read_key(str(path))
    with pytest.raises(BadSetting, match="cannot be read"):
        read_key(str(tmp_path / "nowhere"))


def test_model_without_a_name_is_refused() -> None:
    with pytest.raises(BadSetting, match="after the colon"):
        RemoteChatModel(RemoteModel(""), Metrics())
