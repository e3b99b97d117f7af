"""Starts the scorer: `python -m dnd_services.scorer`."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from dnd.errors import BadSetting
from dnd.serving import Metrics, StageService, run
from dnd.serving.weights import resolve_weights, weights_digest
from dnd.settings import ModelServerSettings


@dataclass(frozen=True)
class ScorerSettings(ModelServerSettings):
    """Settings of the scorer.

    Attributes:
        cache_mb: Memory for embeddings that were computed before, MiB; 0 keeps none.
    """

    cache_mb: int = 256

    def validate(self) -> None:
        super().validate()
        if self.cache_mb < 0:
            raise BadSetting(f"DND_CACHE_MB = {self.cache_mb}: expected 0 or more.")


def build(settings: ScorerSettings, metrics: Metrics) -> StageService:
    """Loads the model and returns the service around it."""
    # Missing or unsafe weights are reported before torch takes its seconds to be imported.
    weights_digest(resolve_weights(settings.model))

    from dnd_services.scorer.backend import load_clip
    from dnd_services.scorer.servicer import stage_service

    return stage_service(load_clip(settings), settings, settings.cache_mb, metrics)


if __name__ == "__main__":
    sys.exit(run("scorer", ScorerSettings, build))
