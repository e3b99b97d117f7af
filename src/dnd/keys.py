"""Keys and seeds: the same inputs give the same key, whoever asks, in whatever order.

A stage's key is the hash of everything that its result depends on; raising the stage's number in
`STAGE_VERSIONS` makes its old results unknown. Shuffles are seeded by the unit, drawings by the
prompt, so that drawings can be shared between units and jobs (ARCHITECTURE, "Reproducible").
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from enum import Enum
from typing import Any

from dnd.profiles import SynthesisSettings

STAGE_VERSIONS = {
    "index": 1,
    "exemplars": 1,
    "caption": 1,
    "summarize": 1,
    "synthesize": 1,
    "measure": 1,
    "score": 1,
    "calibrate": 1,
    "embed": 1,
    "dissect": 1,
    "evaluate": 1,
}


def digest_of(*parts: Any) -> str:
    """SHA-256 of `parts` as canonical JSON, 64 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def stage_key(stage: str, *parts: Any) -> str:
    """Key of one stage's result: stage, version, and what it depends on."""
    return f"{stage}-{digest_of(STAGE_VERSIONS[stage], *parts)}"


def image_set_key(prompt: str, settings: SynthesisSettings, model_digest: str) -> str:
    """Key of the drawings of one prompt: shared by every unit and job that asks for them."""
    return stage_key("synthesize", prompt, settings, model_digest)


def unit_seed(job_seed: int, model: str, layer: str, unit: int) -> int:
    """63-bit seed of a unit's shuffles and of its LLM sampling."""
    return int(digest_of("unit", job_seed, model, layer, unit)[:16], 16) >> 1


def drawing_seed(profile_seed: int, prompt: str, index: int) -> int:
    """63-bit seed of one drawing; never depends on the unit."""
    return int(digest_of("drawing", profile_seed, prompt, index)[:16], 16) >> 1


def call_seed(seed: int, *call: Any) -> int:
    """63-bit seed of one call made on behalf of something that has `seed`."""
    return int(digest_of("call", seed, *call)[:16], 16) >> 1


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"cannot be part of a key: {type(value).__name__}")
