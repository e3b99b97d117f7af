"""Damaged images are decoded or refused, never anything else."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import damaged, fuzzing
from PIL import Image

from dnd.errors import BadImage
from dnd.images import decode_image


def encode(kind: str) -> bytes:
    rng = np.random.default_rng(3)
    picture = Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@fuzzing(150)
@given(data=st.data())
def test_damaged_images_are_decoded_or_refused(kind: str, data: st.DataObject) -> None:
    with suppress(BadImage):
        assert decode_image(damaged(data, encode(kind))).mode == "RGB"


@fuzzing(100)
@given(data=st.binary(max_size=200))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(BadImage):
        decode_image(data)
