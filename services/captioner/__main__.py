"""Starts the captioner: `python -m dnd_services.captioner`."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from dnd.bucket_artifacts import open_artifacts
from dnd.errors import BadSetting
from dnd.serving import Metrics, StageService, run
from dnd.serving.remote_chat import RemoteModel
from dnd.serving.weights import resolve_weights, weights_digest
from dnd.settings import RemoteModelSettings
from dnd_services.captioner.servicer import stage_service

MAX_PROMPT_CHARACTERS = 2000


@dataclass(frozen=True)
class CaptionerSettings(RemoteModelSettings):
    """Settings of the captioner.

    Attributes:
        model: "openai:NAME" for a vision-language model behind an OpenAI-compatible API; otherwise
            a local one: a folder or a hub name@revision.
        prompt: What the model is asked for a caption. Empty: nothing for models that caption
            without a prompt, and a general request for models that take questions.
        max_queue: Images admitted and not yet answered; each waits as a prepared tensor (1.7 MB at
            384 x 384), so the bound is lower than that of other services.
    """

    prompt: str = ""
    max_queue: int = 1024

    def validate(self) -> None:
        super().validate()
        if len(self.prompt) > MAX_PROMPT_CHARACTERS:
            raise BadSetting(
                f"DND_PROMPT has {len(self.prompt)} characters: "
                f"expected at most {MAX_PROMPT_CHARACTERS}."
            )


def build(settings: CaptionerSettings, metrics: Metrics) -> StageService:
    """Connects to or loads the model and returns the service around it."""
    store = open_artifacts(settings.artifacts)
    if settings.is_remote:
        from dnd_services.captioner.openai_backend import RemoteCaptioner

        remote = RemoteModel.of(settings)
        return stage_service(RemoteCaptioner(remote, settings.prompt, metrics), store)

    # Missing or unsafe weights are reported before torch takes its seconds to be imported.
    weights_digest(resolve_weights(settings.model))

    from dnd_services.captioner.backend import load_captioner
    from dnd_services.captioner.batched import BatchedCaptioner

    captioner = load_captioner(settings, settings.prompt)
    return stage_service(BatchedCaptioner(captioner, settings, metrics), store)


if __name__ == "__main__":
    sys.exit(run("captioner", CaptionerSettings, build))
