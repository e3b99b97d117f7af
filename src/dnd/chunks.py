"""Lists in parts: what one call, statement or message carries is bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """`items` in order, at most `size` at a time."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
