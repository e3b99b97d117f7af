"""Marks on many references, in little memory."""

from __future__ import annotations

import numpy as np

_SORTED_AT_ONCE = 1 << 20


class Marks:
    """Marked references, by the first 64 bits of their digests: 8 bytes each.

    Two that share these bits are marked together. Whatever spares what is marked then spares one
    too many, and loses nothing.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._recent: set[int] = set()

    def add(self, ref: str) -> bool:
        """Marks a reference, or a bare SHA-256 digest in hexadecimal; whether that is news."""
        if ref in self:
            return False
        self._recent.add(_head(ref))
        if len(self._recent) >= _SORTED_AT_ONCE:
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.union1d(self._sorted, recent)
            self._recent.clear()
        return True

    def __contains__(self, ref: str) -> bool:
        head = _head(ref)
        if head in self._recent:
            return True
        place = int(np.searchsorted(self._sorted, np.uint64(head)))
        return place < len(self._sorted) and int(self._sorted[place]) == head

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)


def _head(ref: str) -> int:
    return int(ref.removeprefix("sha256:")[:16], 16)
