"""Starts the summarizer: `python -m dnd_services.summarizer`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from dnd.errors import BadSetting
from dnd.serving import Metrics, StageService, run
from dnd.serving.weights import weights_digest
from dnd.settings import ModelServerSettings
from dnd_services.summarizer.model_files import find_model_files
from dnd_services.summarizer.prompting import load_prompt_sets
from dnd_services.summarizer.servicer import stage_service

REMOTE = "openai:"


@dataclass(frozen=True)
class SummarizerSettings(ModelServerSettings):
    """Settings of the summarizer.

    Attributes:
        model: "openai:NAME" for a model behind an OpenAI-compatible API; otherwise a local one: a
            folder, a hub name@revision, "gguf:/path/model.gguf" or "pypi:package".
        prompts: A folder of further prompt sets; empty for none.
        base_url: Root of the API, "http://host:port/v1"; empty for OpenAI's own.
        api_key_file: A file with the key of the API; empty for an API without one.
        max_calls: Calls of the API at the same time.
        call_timeout_s: Time for one call of the API, seconds.
        answer_tokens: Tokens of an answer at most; 0 for the prompt's own limit. A model that
            thinks before it answers needs some hundreds.
        cache: Folder where a GGUF file is kept as the tensors that it was turned into, so that the
            next start takes seconds; empty for nowhere.
    """

    prompts: str = ""
    base_url: str = ""
    api_key_file: str = ""
    max_calls: int = 8
    call_timeout_s: float = 60.0
    answer_tokens: int = 0
    cache: str = "~/.cache/dnd"

    def validate(self) -> None:
        super().validate()
        if self.base_url and not self.base_url.startswith(("http://", "https://")):
            raise BadSetting(
                f"DND_BASE_URL = {self.base_url!r}: expected a URL such as 'http://host:port/v1'."
            )
        if self.max_calls < 1:
            raise BadSetting(f"DND_MAX_CALLS = {self.max_calls}: expected >= 1.")
        if self.call_timeout_s <= 0:
            raise BadSetting(
                f"DND_CALL_TIMEOUT_S = {self.call_timeout_s}: expected more than 0 seconds."
            )
        if self.answer_tokens < 0:
            raise BadSetting(f"DND_ANSWER_TOKENS = {self.answer_tokens}: expected >= 0.")
        if self.base_url and not self.model.startswith(REMOTE):
            raise BadSetting(
                f"DND_BASE_URL is set, and DND_MODEL = {self.model!r} is a local model: name the "
                f"model of that API as '{REMOTE}NAME', or take DND_BASE_URL away."
            )


def build(settings: SummarizerSettings, metrics: Metrics) -> StageService:
    """Connects to or loads the model and returns the service around it."""
    prompts = load_prompt_sets(Path(settings.prompts) if settings.prompts else None)
    if settings.model.startswith(REMOTE):
        from dnd_services.summarizer.openai_backend import RemoteChatModel, RemoteModel, read_key

        remote = RemoteModel(
            name=settings.model.removeprefix(REMOTE),
            base_url=settings.base_url,
            key=read_key(settings.api_key_file),
            max_calls=settings.max_calls,
            max_queue=settings.max_queue,
            timeout_s=settings.call_timeout_s,
            answer_tokens=settings.answer_tokens,
        )
        return stage_service(RemoteChatModel(remote, metrics), prompts)

    # Missing or unsafe weights are reported before torch takes its seconds to be imported.
    weights_digest(find_model_files(settings.model).path)

    os.environ.setdefault("TQDM_DISABLE", "1")  # reading GGUF draws a bar into the log
    from dnd_services.summarizer.local_backend import load_chat_model

    cache = Path(settings.cache) if settings.cache else None
    return stage_service(load_chat_model(settings, prompts.digest, metrics, cache), prompts)


if __name__ == "__main__":
    sys.exit(run("summarizer", SummarizerSettings, build))
