"""Exemplars of a unit in one small square, as lists show them."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageOps

from dnd.images import encode_thumbnail

NUM_TILES = 4
_SIDE, _GAP, _QUALITY = 288, 2, 82


def make_mosaic(images: Sequence[Image.Image]) -> bytes:
    """Up to four images in a square as WebP, each cut to a square; a single one fills it."""
    columns = 1 if len(images) == 1 else 2
    tile = (_SIDE - _GAP * (columns - 1)) // columns
    sheet = Image.new("RGB", (_SIDE, _SIDE), "white")
    for place, image in enumerate(images[:NUM_TILES]):
        row, column = divmod(place, columns)
        fitted = ImageOps.fit(image, (tile, tile), Image.Resampling.LANCZOS)
        sheet.paste(fitted, (column * (tile + _GAP), row * (tile + _GAP)))
    return encode_thumbnail(sheet, _SIDE, _QUALITY)
