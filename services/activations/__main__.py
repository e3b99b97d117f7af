"""Starts the activations service: `python -m dnd_services.activations`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from dnd.errors import BadSetting
from dnd.serving import Metrics, StageService, run
from dnd.settings import ModelServerSettings


@dataclass(frozen=True)
class ActivationsSettings(ModelServerSettings):
    """Settings of the activations service.

    Attributes:
        models: File that names the networks, models.yaml.
        probes: File that names the probe sets, probes.yaml.
        allow_specs: Take specifications ("hf:…", a folder) in requests too. A caller can then run
            any code that is installed: for private stacks.
        max_models: Networks kept in memory.
        decoders: Threads that read, decode and encode images; 0 for one per core, at most 8.
    """

    models: str = ""
    probes: str = ""
    allow_specs: bool = False
    max_models: int = 4
    decoders: int = 0

    def validate(self) -> None:
        super().validate()
        if not self.models and not self.allow_specs:
            raise BadSetting(
                "DND_MODELS is not set: name the file with the networks that may be asked for "
                "(models.yaml), or set DND_ALLOW_SPECS=true on a private stack."
            )
        if self.max_models < 1:
            raise BadSetting(f"DND_MAX_MODELS = {self.max_models}: expected >= 1.")
        if self.decoders < 0:
            raise BadSetting(f"DND_DECODERS = {self.decoders}: expected >= 0.")


def build(settings: ActivationsSettings, metrics: Metrics) -> StageService:
    """Reads the registry and returns the service; networks are loaded when they are asked for."""
    from dnd_services.activations.backend import Backend
    from dnd_services.activations.loaders import LOADERS
    from dnd_services.activations.registry import load_registry
    from dnd_services.activations.servicer import stage_service
    from dnd_services.activations.sources import SOURCES

    registry = load_registry(
        settings.models,
        settings.probes,
        model_schemes=tuple(LOADERS),
        probe_schemes=tuple(SOURCES),
        allow_specs=settings.allow_specs,
    )
    backend = Backend(
        settings,
        registry,
        max_models=settings.max_models,
        num_decoders=settings.decoders or min(8, os.cpu_count() or 1),
        metrics=metrics,
    )
    return stage_service(backend)


if __name__ == "__main__":
    sys.exit(run("activations", ActivationsSettings, build))
