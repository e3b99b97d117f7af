"""Tiny language models, built once, and one that says what a test tells it to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from tiny import chat_models
from tiny.settings import tiny_settings

from dnd.serving import Metrics
from dnd.types import ModelInfo, OrError, RequestContext
from dnd_services.summarizer.llm import ChatAnswer, ChatCall
from dnd_services.summarizer.local_backend import LocalChatModel, load_chat_model
from dnd_services.summarizer.prompting import PromptSets, load_prompt_sets

MAX_BATCH = 6
settings_for = partial(tiny_settings, MAX_BATCH)
CONTEXT = RequestContext()


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model."""
    return chat_models.save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a GGUF file."""
    return chat_models.save_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="session")
def prompts() -> PromptSets:
    """The built-in prompt sets."""
    return load_prompt_sets()


def load(model: str | Path, **options: object) -> LocalChatModel:
    """A loaded local model; to be closed by its user."""
    return load_chat_model(settings_for(model, **options), "prompts", Metrics())


class ScriptedModel:
    """Answers by a function of the call, and keeps what it was asked."""

    def __init__(self, say: Callable[[ChatCall], OrError[ChatAnswer] | str]) -> None:
        self.say = say
        self.rounds: list[list[ChatCall]] = []
        self.info = ModelInfo("scripted", digest="d" * 64)

    async def complete(
        self, calls: Sequence[ChatCall], *, context: RequestContext, timeout_s: float | None
    ) -> list[OrError[ChatAnswer]]:
        self.rounds.append(list(calls))
        said = [self.say(call) for call in calls]
        return [ChatAnswer(one, 100, 3) if isinstance(one, str) else one for one in said]

    async def close(self) -> None:
        pass
