"""Tiny captioners, built once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import captioners
from tiny.settings import tiny_settings

from dnd_services.captioner.backend import Captioner, load_captioner

SAVE: dict[str, Callable[[Path], Path]] = {
    "blip": captioners.save_blip,
    "blip2": captioners.save_blip2,
    "chat": captioners.save_chat_model,
    "encoder_decoder": captioners.save_encoder_decoder,
}
MAX_BATCH = 6
settings_for = partial(tiny_settings, MAX_BATCH)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model by its name in `SAVE`."""
    folders: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in folders:
            folders[name] = SAVE[name](tmp_path_factory.mktemp(name))
        return folders[name]

    return get


@pytest.fixture(scope="session")
def load(weights: Callable[[str], Path]) -> Callable[..., Captioner]:
    """A loaded tiny captioner by name, prompt and settings."""
    loaded: dict[object, Captioner] = {}

    def get(name: str, prompt: str = "", **options: object) -> Captioner:
        key = (name, prompt, tuple(sorted(options.items())))
        if key not in loaded:
            loaded[key] = load_captioner(settings_for(weights(name), **options), prompt)
        return loaded[key]

    return get


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Different pictures of one shape."""
    rng = np.random.default_rng(3)
    return [
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(MAX_BATCH)
    ]
