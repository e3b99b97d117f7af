"""Tiny pipelines, built once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tiny import pipelines
from tiny.settings import tiny_settings

from dnd_services.synthesizer.backend import Synthesizer, load_synthesizer

SAVE: dict[str, Callable[[Path], Path]] = {
    "sd": pipelines.save_sd,
    "sdxl": pipelines.save_sdxl,
    "lcm": pipelines.save_lcm,
}
MAX_BATCH = 4
settings_for = partial(tiny_settings, MAX_BATCH)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny pipeline by its name in `SAVE`."""
    folders: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in folders:
            folders[name] = SAVE[name](tmp_path_factory.mktemp(name))
        return folders[name]

    return get


@pytest.fixture(scope="session")
def load(weights: Callable[[str], Path]) -> Callable[..., Synthesizer]:
    """A loaded tiny synthesizer by name and settings."""
    loaded: dict[object, Synthesizer] = {}

    def get(name: str, **options: object) -> Synthesizer:
        key = (name, tuple(sorted(options.items())))
        if key not in loaded:
            loaded[key] = load_synthesizer(settings_for(weights(name), **options))
        return loaded[key]

    return get
