"""Settings of a service around a tiny model."""

from __future__ import annotations

from pathlib import Path

from dnd.settings import ModelServerSettings


def tiny_settings(max_batch: int, model: str | Path, **options: object) -> ModelServerSettings:
    """Settings of one thread: with more, equal bits need a setting made before torch computes."""
    values: dict[str, object] = {"max_batch": max_batch, "artifacts": "unused", "threads": 1}
    values |= options
    return ModelServerSettings(model=str(model), **values)  # type: ignore[arg-type]
