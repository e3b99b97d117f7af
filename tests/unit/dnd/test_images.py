"""Images from strangers: every kind that is accepted, every kind that is not."""

import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from dnd import images
from dnd.errors import BadImage
from dnd.images import decode_image, encode_png, encode_thumbnail


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_png_comes_back_pixel_by_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    back = decode_image(encode_png(Image.fromarray(pixels)))
    np.testing.assert_array_equal(np.asarray(back), pixels)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_any_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (4, 3), (200, 30, 30)).convert(mode)
    found = decode_image(encoded(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert (found.mode, found.size) == ("RGB", (4, 3))


def test_transparency_lies_on_white() -> None:
    found = decode_image(encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 0))))
    assert found.getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_cut() -> None:
    values = np.array([[0, 32768, 65535]], dtype=np.uint16)
    found = decode_image(encoded(Image.fromarray(values)))
    assert [found.getpixel((x, 0))[0] for x in range(3)] == [0, 127, 255]


def test_dark_picture_of_sixteen_bits_stays_dark() -> None:
    found = decode_image(encoded(Image.fromarray(np.full((2, 2), 200, dtype=np.uint16))))
    assert found.getpixel((0, 0)) == (0, 0, 0)


def test_nothing_but_pixels_is_passed_on() -> None:
    """A colour profile or a text in a source must not tell apart crops that look the same."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "secretname")
    picture = Image.new("RGB", (3, 3), "red")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    marked = encoded(picture, pnginfo=texts, icc_profile=profile)
    assert encode_png(decode_image(marked)) == encode_png(decode_image(encoded(picture)))


def test_pictures_are_decoded_alike_in_many_threads() -> None:
    """Decoding changes nothing that threads share, such as the filters of warnings."""
    bomb, good = encoded(Image.new("1", (9000, 9000))), encoded(Image.new("RGB", (9, 9), "red"))

    def decode(data: bytes) -> str:
        try:
            return decode_image(data).mode
        except BadImage as error:
            return error.message

    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(decode, [bomb, good] * 200))
    assert len(found) == 2
    assert warnings.filters == filters


def test_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert decode_image(data).getpixel((0, 0)) == (255, 0, 0)


def test_picture_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(Image.new("RGB", (4, 2)), "JPEG", exif=exif)).size == (2, 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"no image at all", "Not a readable"),
        (encoded(Image.new("RGB", (64, 64), "red"))[:80], "Not a readable"),
        (encoded(Image.new("RGB", (4, 4)), "GIF"), "Not a readable"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "Not a readable"),
    ],
)
def test_garbage_is_a_bad_image(data: bytes, message: str) -> None:
    with pytest.raises(BadImage, match=message):
        decode_image(data)


def test_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(BadImage, match=r"pixels|too large"):
        decode_image(encoded(Image.new("1", (20_000, 20_000))))


def test_byte_cap_is_checked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    with pytest.raises(BadImage, match="11 bytes: expected at most 10"):
        decode_image(b"x" * 11)


def test_thumbnail_keeps_the_aspect() -> None:
    found = Image.open(io.BytesIO(encode_thumbnail(Image.new("RGB", (200, 100)), 50)))
    assert (found.format, found.size) == ("WEBP", (50, 25))
