"""Thumbnails and mosaics for pages: small, kept in memory, made by few threads at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from PIL import Image

from dnd.artifacts import ArtifactStore
from dnd.errors import BadImage, NotFound
from dnd.explorer.mosaics import make_mosaic
from dnd.images import decode_image, encode_thumbnail

MAX_KEPT_BYTES = 64 * 2**20
MAX_AT_ONCE = 2
QUALITY = 82


class Pictures:
    """WebP pictures made from images of the artifact store.

    Args:
        max_kept_bytes: Of pictures in memory; the least recently used ones are forgotten.
    """

    def __init__(self, max_kept_bytes: int = MAX_KEPT_BYTES) -> None:
        self._max_kept_bytes = max_kept_bytes
        self._num_kept_bytes = 0
        self._kept: OrderedDict[tuple[str, ...], bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(MAX_AT_ONCE)

    def thumbnail(self, artifacts: ArtifactStore, ref: str, side: int) -> bytes:
        """An image with at most `side` pixels on its longer side; never larger than it was.

        Raises:
            NotFound: It is gone, or it is no image.
        """
        return self._get(
            (ref, str(side)), lambda: encode_thumbnail(_read(artifacts, ref), side, QUALITY)
        )

    def mosaic(self, artifacts: ArtifactStore, refs: Sequence[str]) -> bytes:
        """Up to four images in a square, each cut to its own; a single one fills it.

        Raises:
            NotFound: One is gone, or it is no image.
        """
        return self._get(
            ("mosaic", *refs), lambda: make_mosaic([_read(artifacts, ref) for ref in refs])
        )

    def _get(self, key: tuple[str, ...], make: Callable[[], bytes]) -> bytes:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._turns:
            data = make()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = data
                self._num_kept_bytes += len(data)
            while self._num_kept_bytes > self._max_kept_bytes:
                self._num_kept_bytes -= len(self._kept.popitem(last=False)[1])
        return data


def _read(artifacts: ArtifactStore, ref: str) -> Image.Image:
    try:
        return decode_image(artifacts.get_bytes(ref))
    except BadImage:
        raise NotFound(f"There is no image {ref}.") from None
