"""Starts the synthesizer: `python -m dnd_services.synthesizer`."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from dnd.serving import Metrics, StageService, run
from dnd.serving.weights import resolve_weights, weights_digest
from dnd.settings import ModelServerSettings


@dataclass(frozen=True)
class SynthesizerSettings(ModelServerSettings):
    """Settings of the synthesizer.

    Attributes:
        variant: Which files of the weights are read where a folder has several: "fp16" for
            *.fp16.safetensors; empty for those without a variant in their names.
    """

    variant: str = ""


def build(settings: SynthesizerSettings, metrics: Metrics) -> StageService:
    """Loads the pipeline and returns the service around it."""
    # Missing or unsafe weights are reported before torch takes its seconds to be imported.
    weights_digest(resolve_weights(settings.model))

    from dnd_services.synthesizer.backend import load_synthesizer
    from dnd_services.synthesizer.servicer import stage_service

    return stage_service(load_synthesizer(settings, settings.variant), settings, metrics)


if __name__ == "__main__":
    sys.exit(run("synthesizer", SynthesizerSettings, build))
