"""Starts the summarizer: `python -m dnd_services.summarizer`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from dnd.serving import Metrics, StageService, run
from dnd.serving.remote_chat import RemoteModel
from dnd.serving.weights import weights_digest
from dnd.settings import RemoteModelSettings
from dnd_services.summarizer.model_files import find_model_files
from dnd_services.summarizer.prompting import load_prompt_sets
from dnd_services.summarizer.servicer import stage_service


@dataclass(frozen=True)
class SummarizerSettings(RemoteModelSettings):
    """Settings of the summarizer.

    Attributes:
        model: "openai:NAME" for a model behind an OpenAI-compatible API; otherwise a local one: a
            folder, a hub name@revision, "gguf:/path/model.gguf" or "pypi:package".
        prompts: A folder of further prompt sets; empty for none.
        cache: Folder where a GGUF file is kept as the tensors that it was turned into, so that the
            next start takes seconds; empty for nowhere.
    """

    prompts: str = ""
    cache: str = "~/.cache/dnd"


def build(settings: SummarizerSettings, metrics: Metrics) -> StageService:
    """Connects to or loads the model and returns the service around it."""
    prompts = load_prompt_sets(Path(settings.prompts) if settings.prompts else None)
    if settings.is_remote:
        from dnd_services.summarizer.openai_backend import RemoteChatModel

        return stage_service(RemoteChatModel(RemoteModel.of(settings), metrics), prompts)

    # Missing or unsafe weights are reported before torch takes its seconds to be imported.
    weights_digest(find_model_files(settings.model).path)

    os.environ.setdefault("TQDM_DISABLE", "1")  # reading GGUF draws a bar into the log
    from dnd_services.summarizer.local_backend import load_chat_model

    cache = Path(settings.cache) if settings.cache else None
    return stage_service(load_chat_model(settings, prompts.digest, metrics, cache), prompts)


if __name__ == "__main__":
    sys.exit(run("summarizer", SummarizerSettings, build))
