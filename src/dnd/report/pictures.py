"""Thumbnails of a page: each picture once, as WebP in a style sheet, within a budget of bytes.

A picture that is used twice (a drawing shared by two units, a source image that two crops come
from) is embedded once and shown wherever an element has its class.
"""

from __future__ import annotations

import base64
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from dnd.errors import BadImage, NotFound
from dnd.images import decode_image, encode_thumbnail

Fetch = Callable[[Sequence[str]], list[bytes]]
"""Encoded images for references, in order; NotFound if one is gone."""

MAX_IMAGE_BYTES = 15_000_000  # of a page of at most 20 MB; the rest is for its text
_CHUNK = 64


class Kind(Enum):
    """What a picture is shown as; the order is that of size."""

    DECILE = "decile"
    DRAWING = "drawing"
    SOURCE = "source"


@dataclass(frozen=True)
class Level:
    """One step of quality.

    Attributes:
        sides: Longer side of each kind, pixels.
        quality: Of WebP, 0 to 100.
        per_decile: Images shown of each decile at most.
        num_drawn: Candidates whose drawings are shown, best first.
    """

    sides: Mapping[Kind, int]
    quality: int
    per_decile: int
    num_drawn: int


LEVELS = (
    Level({Kind.DECILE: 72, Kind.DRAWING: 96, Kind.SOURCE: 160}, 82, 5, 99),
    Level({Kind.DECILE: 56, Kind.DRAWING: 64, Kind.SOURCE: 128}, 80, 3, 99),
    Level({Kind.DECILE: 48, Kind.DRAWING: 64, Kind.SOURCE: 112}, 75, 2, 4),
    Level({Kind.DECILE: 40, Kind.DRAWING: 48, Kind.SOURCE: 96}, 70, 1, 3),
    Level({Kind.DECILE: 32, Kind.DRAWING: 40, Kind.SOURCE: 72}, 55, 1, 3),
)


@dataclass(frozen=True)
class Picture:
    """A thumbnail, and the size of the image it was made from, pixels.

    Attributes:
        css_class: Shows it, in a page that carries its pictures.
        data: Encoded, in such a page.
        href: Where it lies, for a page that carries none.
    """

    css_class: str
    width: int
    height: int
    data: bytes
    href: str = ""


class Pictures(Protocol):
    """The thumbnails of a page by the references of their images; None for what is gone."""

    def get(self, ref: str, /) -> Picture | None: ...


class Album:
    """The thumbnails of one page.

    Args:
        pictures: By reference; a reference without a picture is one that is gone.
    """

    def __init__(self, pictures: Mapping[str, Picture]) -> None:
        self._pictures = pictures

    def get(self, ref: str) -> Picture | None:
        return self._pictures.get(ref)

    @property
    def num_bytes(self) -> int:
        """Bytes of the pictures once they are in the page."""
        return sum(4 * math.ceil(len(data) / 3) for data in self._data().values())

    def style_sheet(self) -> str:
        """One rule for each picture."""
        return "".join(
            f".{css_class}{{background-image:url(data:image/webp;base64,"
            f"{base64.b64encode(data).decode()})}}\n"
            for css_class, data in self._data().items()
        )

    def _data(self) -> dict[str, bytes]:
        return {picture.css_class: picture.data for picture in self._pictures.values()}


def choose_level(fetch: Fetch, wanted: Callable[[Level], Mapping[str, Kind]], seed: int) -> int:
    """The best level at which a page will fit, predicted from a sample of its pictures.

    Args:
        fetch: Where images come from.
        wanted: The references that a page shows at a level, each with its largest kind.
        seed: Of the sample.
    """
    for number, level in enumerate(LEVELS):
        refs = wanted(level)
        sample = random.Random(seed).sample(sorted(refs), min(len(refs), 48))
        album = make_album(fetch, {ref: refs[ref] for ref in sample}, level)
        if album.num_bytes / max(len(sample), 1) * len(refs) * 1.1 <= MAX_IMAGE_BYTES:
            return number
    return len(LEVELS) - 1


def make_album(fetch: Fetch, refs: Mapping[str, Kind], level: Level) -> Album:
    """Thumbnails of all `refs`; what is gone or cannot be read is left out."""
    pictures: dict[str, Picture] = {}
    classes: dict[bytes, str] = {}  # one rule for images that become the same thumbnail
    ordered = list(refs)

    def shrink(item: tuple[str, bytes]) -> tuple[str, int, int, bytes] | None:
        ref, data = item
        try:
            image = decode_image(data)
        except BadImage:
            return None
        thumbnail = encode_thumbnail(image, level.sides[refs[ref]], level.quality)
        return ref, image.width, image.height, thumbnail

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(ordered), _CHUNK):
            fetched = fetch_those_there(fetch, ordered[start : start + _CHUNK])
            for ref, width, height, data in filter(None, pool.map(shrink, fetched)):
                css_class = classes.setdefault(data, f"p{len(classes):x}")
                pictures[ref] = Picture(css_class, width, height, data)
    return Album(pictures)


def largest_kinds(shown: Iterable[tuple[str, Kind]]) -> dict[str, Kind]:
    """Each reference with the largest kind that it is shown as, in order of appearance."""
    order = list(Kind)
    kinds: dict[str, Kind] = {}
    for ref, kind in shown:
        if ref not in kinds or order.index(kind) > order.index(kinds[ref]):
            kinds[ref] = kind
    return kinds


def fetch_those_there(fetch: Fetch, refs: Sequence[str]) -> list[tuple[str, bytes]]:
    """The images that are there; one that is gone does not take the others with it."""
    if not refs:
        return []
    try:
        return list(zip(refs, fetch(refs), strict=True))
    except NotFound:
        if len(refs) == 1:
            return []
        middle = len(refs) // 2
        return fetch_those_there(fetch, refs[:middle]) + fetch_those_there(fetch, refs[middle:])
