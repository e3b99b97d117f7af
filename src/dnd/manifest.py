"""The manifest of a frozen probe set: the digests of its images, and which half each belongs to.

An image's digest is also its reference in the artifact store, so that every service that is given
a manifest can read the images; file names are in none of it. Images are in the order of their
digests, which says nothing about where they came from (METHOD, "Select and judge").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dnd.artifacts import ArtifactStore
from dnd.errors import InvalidInput, NotFound

DIGEST_BYTES = 32
_ROW = np.dtype([("digest", np.uint8, (DIGEST_BYTES,)), ("judge", np.bool_)])


@dataclass(frozen=True)
class Manifest:
    """Images of a probe set, in order of their digests.

    Attributes:
        digests: SHA-256 of each image's encoded bytes, (images, 32) uint8.
        judge: (images,) bool: in the judge half, else in the select half.
    """

    digests: np.ndarray
    judge: np.ndarray

    def __post_init__(self) -> None:
        expected = (len(self.judge), DIGEST_BYTES)
        if self.digests.shape != expected or self.digests.dtype != np.uint8:
            raise InvalidInput(
                f"Digests of a manifest are {self.digests.dtype} {self.digests.shape}: "
                f"expected uint8 {expected}."
            )

    def __len__(self) -> int:
        return len(self.judge)

    def refs(self, indices: Iterable[int] | None = None) -> list[str]:
        """References of the images at `indices`, of all without any."""
        chosen = range(len(self)) if indices is None else indices
        return ["sha256:" + self.digests[int(index)].tobytes().hex() for index in chosen]

    def select_indices(self) -> np.ndarray:
        """Indices of the select half, ascending, int64."""
        return np.flatnonzero(~self.judge)

    def judge_indices(self) -> np.ndarray:
        """Indices of the judge half, ascending, int64."""
        return np.flatnonzero(self.judge)

    def save(self, store: ArtifactStore) -> str:
        """Stores the manifest and returns its reference, 33 bytes an image."""
        rows = np.empty(len(self), _ROW)
        rows["digest"] = self.digests
        rows["judge"] = self.judge
        return store.put_array(rows)

    @classmethod
    def load(cls, store: ArtifactStore, ref: str) -> Manifest:
        """The manifest behind `ref`, memory-mapped: what is not looked at stays on disk.

        Raises:
            NotFound: The store does not have it.
            InvalidInput: `ref` is no reference, or something else is behind it.
        """
        if ref not in store:
            raise NotFound(f"The artifact store has no {ref}.")
        try:
            rows = store.get_array(ref)
        except InvalidInput:
            rows = np.empty(0)
        if rows.dtype != _ROW or rows.ndim != 1:
            raise InvalidInput(f"{ref} is no manifest of a probe set: ask GetProbeSet for one.")
        return cls(rows["digest"], rows["judge"])


def build_manifest(digests: np.ndarray, judge_fraction: float) -> tuple[Manifest, np.ndarray]:
    """The manifest of images with these digests, equal ones once.

    Args:
        digests: (images, 32) uint8, in any order.
        judge_fraction: Share of the judge half, 0..1.

    Returns:
        The manifest, and for each of its images the first position in `digests`.
    """
    words = np.ascontiguousarray(digests).view(">u8")
    order = np.lexsort(words.T[::-1])
    ordered = words[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    positions = order[first]
    kept = np.ascontiguousarray(digests[positions])
    return Manifest(kept, is_judge(kept, judge_fraction)), positions


def is_judge(digests: np.ndarray, judge_fraction: float) -> np.ndarray:
    """Whether images belong to the judge half, decided by their content alone.

    Args:
        digests: (images, 32) uint8.
        judge_fraction: Share of the judge half, 0..1.

    Returns:
        (images,) bool: the first 32 bits of the digest, as a fraction of 2^32, lie below the share.
    """
    heads = np.ascontiguousarray(digests[:, :4]).view(">u4")[:, 0]
    return np.asarray(heads / 2.0**32 < judge_fraction)
