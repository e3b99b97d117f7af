"""Regions of high activation, cut out of an image (DnD section 3.1, "probing set augmentation").

A unit's activation map becomes a picture of 8 bits, is resized to the frame it covers, thresholded
by Otsu's method, and the bounding boxes of its outer contours are taken, largest area first.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from dnd.profiles import BoxGeometry, CropFit, ExemplarSettings, MapScaling
from dnd.types import Box
from dnd_services.activations.preprocessing import Preprocessing

# Pictures here are small, and the cores belong to the network.
cv2.setNumThreads(1)


def to_8bit(activation_map: np.ndarray, scaling: MapScaling) -> np.ndarray:
    """A map (height, width) of floats as uint8.

    TRUNCATE is the published rule, made safe: a map with values above 1 is divided by its maximum
    first, since 255 times such a value would wrap around.
    """
    values = np.asarray(activation_map, np.float32)
    if scaling is MapScaling.MIN_MAX:
        low, high = float(values.min()), float(values.max())
        if high <= low:
            return np.zeros(values.shape, np.uint8)
        scaled: np.ndarray = np.rint((values - low) * (255.0 / (high - low)))
        return scaled.astype(np.uint8)
    high = float(values.max())
    if high > 1:
        values = values / high
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def find_boxes(
    activation_map: np.ndarray, frame: tuple[int, int], settings: ExemplarSettings
) -> list[Box]:
    """The accepted boxes, largest first, in pixels of the frame.

    Args:
        activation_map: (height, width).
        frame: Width and height of what the map covers, pixels.
        settings: `max_crops`, `max_iou`, `max_image_iou` and `map_scaling` are used.
    """
    small = Image.fromarray(to_8bit(activation_map, settings.map_scaling))
    picture = np.asarray(small.resize(frame, Image.Resampling.BICUBIC))
    _, binary = cv2.threshold(picture, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    contours, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours:
        x, y, width, height = cv2.boundingRect(contour)
        found.append(Box(x, y, x + width, y + height))
    found.sort(key=area, reverse=True)
    whole = Box(0, 0, *frame)
    accepted: list[Box] = []
    for box in found:
        if len(accepted) >= settings.max_crops:
            break
        if iou(box, whole) >= settings.max_image_iou:
            continue
        if any(iou(box, other) > settings.max_iou for other in accepted):
            continue
        accepted.append(box)
    return accepted


def area(box: Box) -> int:
    """Pixels in `box`."""
    return (box.x1 - box.x0) * (box.y1 - box.y0)


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / (area(one) + area(other) - common)


def fit_picture(image: Image.Image, size: int, fit: CropFit) -> Image.Image:
    """`image` as a square of `size` pixels.

    PAD keeps the aspect; the bars have the median colour of the picture's rim, so that they add no
    edge that a unit could respond to: white around a drawing on white, sky around a bird.
    """
    if fit is CropFit.SQUASH:
        return image.resize((size, size), Image.Resampling.BICUBIC)
    scale = size / max(image.size)
    width, height = (max(1, min(size, round(side * scale))) for side in image.size)
    scaled = image.resize((width, height), Image.Resampling.BICUBIC)
    if (width, height) == (size, size):
        return scaled
    square = Image.new("RGB", (size, size), _rim_colour(scaled))
    square.paste(scaled, ((size - width) // 2, (size - height) // 2))
    return square


def _rim_colour(image: Image.Image) -> tuple[int, int, int]:
    pixels = np.asarray(image)
    rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(rim, axis=0).astype(int)
    return int(red), int(green), int(blue)


def frame_of(settings: ExemplarSettings, preprocessing: Preprocessing) -> tuple[int, int]:
    """Width and height of what an activation map is stretched over, pixels.

    By the published rule that is the whole image; what a map really covers is what the network saw.
    """
    if settings.box_geometry is BoxGeometry.WHOLE_IMAGE:
        return (settings.size, settings.size)
    height, width = preprocessing.size
    return (width, height)


def to_source_box(
    box: Box,
    source_size: tuple[int, int],
    settings: ExemplarSettings,
    preprocessing: Preprocessing,
) -> Box:
    """A box of the frame as a region of the source image: the whole pixels around it.

    Args:
        box: Pixels of the frame.
        source_size: Width and height of the source image, pixels.
    """
    if settings.box_geometry is BoxGeometry.PREPROCESSING:
        return preprocessing.to_source(box, *source_size)
    width, height = frame_of(settings, preprocessing)
    stretched = Preprocessing(size=(height, width), shortest_edge=None)
    return stretched.to_source(box, *source_size)


def cut_picture(
    source: Image.Image, place: Box, box: Box, settings: ExemplarSettings
) -> Image.Image:
    """A crop as the square that is stored.

    The published rule squashes the image first and cuts `place` from that; otherwise `box` is cut
    from the source, at its own resolution.
    """
    squashes = settings.fit is CropFit.SQUASH
    if squashes and settings.box_geometry is BoxGeometry.WHOLE_IMAGE:
        frame = fit_picture(source, settings.size, settings.fit)
        crop = frame.crop((place.x0, place.y0, place.x1, place.y1))
    else:
        crop = source.crop((box.x0, box.y0, box.x1, box.y1))
    return fit_picture(crop, settings.size, settings.fit)
