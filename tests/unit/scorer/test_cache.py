"""The memory of embeddings is bounded, and forgets what was not used for longest."""

from __future__ import annotations

import numpy as np

from dnd_services.scorer.cache import EmbeddingCache


def vector(value: float) -> np.ndarray:
    return np.full(100, value, np.float32)


def entry_bytes() -> int:
    """What one entry under a key of one letter costs."""
    cache = EmbeddingCache(10_000)
    cache.put("a", vector(0))
    return cache.num_bytes


def test_least_recently_used_is_dropped_when_memory_is_full() -> None:
    cache = EmbeddingCache(3 * entry_bytes())
    for key in "abc":
        cache.put(key, vector(ord(key)))
    assert cache.get("a") is not None
    cache.put("d", vector(4))
    assert [key for key in "abcd" if cache.get(key) is None] == ["b"]
    assert len(cache) == 3
    assert cache.num_bytes == 3 * entry_bytes()


def test_entry_is_replaced_when_it_is_put_again() -> None:
    cache = EmbeddingCache(10_000)
    cache.put("a", vector(1))
    cache.put("a", vector(2))
    assert len(cache) == 1
    assert cache.num_bytes == entry_bytes()
    found = cache.get("a")
    assert found is not None
    assert found[0] == 2


def test_nothing_is_kept_when_there_is_no_memory() -> None:
    for size in (0, 10):
        cache = EmbeddingCache(size)
        cache.put("a", vector(1))
        assert cache.get("a") is None
        assert (len(cache), cache.num_bytes) == (0, 0)
