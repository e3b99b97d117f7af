"""Reading the images of a request: in order, errors per item, few decoded ones at a time."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from PIL import Image

from dnd.artifacts import ArtifactStore
from dnd.errors import BadImage, DndError
from dnd.images import encode_png
from dnd.serving.inputs import prepare_images, read_images
from dnd.v1 import types_pb2


def inline(colour: str) -> types_pb2.Image:
    return types_pb2.Image(data=encode_png(Image.new("RGB", (4, 4), colour)))


async def test_images_come_in_order_and_bad_ones_as_errors(tmp_path: Path) -> None:
    images = [inline("red"), types_pb2.Image(data=b"?"), inline("blue"), types_pb2.Image()]
    red, bad, blue, none = await read_images(images, ArtifactStore(tmp_path))
    assert isinstance(red, Image.Image)
    assert isinstance(blue, Image.Image)
    assert (red.getpixel((0, 0)), blue.getpixel((0, 0))) == ((255, 0, 0), (0, 0, 255))
    assert isinstance(bad, BadImage)
    assert isinstance(none, BadImage)


async def test_error_of_preparing_stays_with_its_image(tmp_path: Path) -> None:
    def refuse_blue(image: Image.Image) -> str:
        if image.getpixel((0, 0)) == (0, 0, 255):
            raise BadImage("blue")
        return "fine"

    images = [inline("red"), inline("blue"), inline("lime")]
    answers = await prepare_images(images, ArtifactStore(tmp_path), refuse_blue)
    assert [a.message if isinstance(a, DndError) else a for a in answers] == [
        "fine",
        "blue",
        "fine",
    ]


async def test_few_decoded_images_exist_at_a_time_however_many_are_asked_for(
    tmp_path: Path,
) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def prepare(image: Image.Image) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.002)
        with lock:
            now -= 1

    await prepare_images([inline("red")] * 64, ArtifactStore(tmp_path), prepare)
    assert 1 <= most <= 4
