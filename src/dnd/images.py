"""Reading images from strangers, and writing our own. Byte cap, then pixel cap, then decoding."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dnd.errors import BadImage

FORMATS: Final = ("JPEG", "PNG", "WEBP")
MAX_BYTES: Final = 16 * 2**20
MAX_PIXELS: Final = 50_000_000


def decode_image(data: bytes) -> Image.Image:
    """An image in RGB: first frame, upright, transparency on white, 16 bits scaled to 8.

    Raises:
        BadImage: Not a JPEG, PNG or WebP image, damaged, or larger than the caps.
    """
    if not data:
        raise BadImage("The image is empty: 0 bytes.")
    if len(data) > MAX_BYTES:
        raise BadImage(f"The image has {len(data)} bytes: expected at most {MAX_BYTES}.")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise BadImage(
                f"The image has {image.width} x {image.height} pixels: "
                f"expected at most {MAX_PIXELS}."
            )
        image.seek(0)
        image.load()
        decoded = _to_rgb(ImageOps.exif_transpose(image))
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(f"The image is too large to decode: {error}") from None
    except UnidentifiedImageError:  # its text names an object in memory
        raise BadImage(f"Not a readable {', '.join(FORMATS)} image.") from None
    except Exception as error:  # Pillow raises many classes on damaged files
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadImage(f"Not a readable {', '.join(FORMATS)} image: {detail}") from None
    decoded.info.clear()  # colour profiles and texts would go on into what we store
    return decoded


def encode_png(image: Image.Image) -> bytes:
    """A lossless PNG; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def make_montage(pictures: Sequence[Image.Image], tile: int, gap: int = 8) -> Image.Image:
    """Pictures row by row in a grid on white, each fitted into a square of `tile` pixels."""
    num_columns = math.ceil(math.sqrt(len(pictures)))
    num_rows = math.ceil(len(pictures) / num_columns)
    pitch = tile + gap
    sheet = Image.new("RGB", (num_columns * pitch + gap, num_rows * pitch + gap), "white")
    for place, picture in enumerate(pictures):
        row, column = divmod(place, num_columns)
        fitted = ImageOps.pad(picture, (tile, tile), color="white")
        sheet.paste(fitted, (gap + column * pitch, gap + row * pitch))
    return sheet


def encode_thumbnail(image: Image.Image, side: int, quality: int = 80) -> bytes:
    """A WebP image of at most `side` pixels on its longer side."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # a PNG of 16 bits; the other formats do not have them
        values = np.asarray(image, dtype=np.float64) * (255.0 / 65535.0)
        image = Image.fromarray(values.astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")
