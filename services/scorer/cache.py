"""A bounded memory of embeddings: the same text or picture is computed once."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

_OVERHEAD_BYTES = 256
"""What an entry costs beside its numbers: key, array header, links."""


class EmbeddingCache:
    """Least recently used embeddings, bounded in bytes. For use in one thread.

    Args:
        max_bytes: Memory for entries; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, Vector] = OrderedDict()
        self.num_bytes = 0

    def get(self, key: str) -> Vector | None:
        """The embedding of `key`, which counts as used now."""
        vector = self._entries.get(key)
        if vector is not None:
            self._entries.move_to_end(key)
        return vector

    def put(self, key: str, vector: Vector) -> None:
        """Keeps an embedding, and drops the least recently used ones that no longer fit."""
        old = self._entries.pop(key, None)
        if old is not None:
            self.num_bytes -= _cost(key, old)
        self._entries[key] = vector
        self.num_bytes += _cost(key, vector)
        while self.num_bytes > self._max_bytes:
            dropped, value = self._entries.popitem(last=False)
            self.num_bytes -= _cost(dropped, value)

    def __len__(self) -> int:
        return len(self._entries)


def _cost(key: str, vector: Vector) -> int:
    return vector.nbytes + len(key) + _OVERHEAD_BYTES
