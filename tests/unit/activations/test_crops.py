"""Crops: the published rule exactly, and the corrected one where it differs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnd.profiles import DEFAULT, PAPER, CropFit, ExemplarSettings, MapScaling
from dnd.types import Box
from dnd_services.activations.crops import (
    cut_picture,
    find_boxes,
    fit_picture,
    iou,
    to_8bit,
    to_source_box,
)
from dnd_services.activations.preprocessing import Preprocessing

GOLDEN = Path(__file__).parents[2] / "golden"
MAPS = np.load(GOLDEN / "activation_maps.npz")
CROPS = json.loads((GOLDEN / "attention_crops.json").read_text())
SEEN = Preprocessing(size=(224, 224), shortest_edge=256)


@pytest.mark.parametrize("name", sorted(CROPS))
def test_boxes_equal_the_published_ones(name: str) -> None:
    found = find_boxes(MAPS[name], (375, 375), PAPER.exemplars)
    assert [[b.x0, b.y0, b.x1, b.y1] for b in found] == CROPS[name]


def test_golden_maps_are_all_covered() -> None:
    assert sorted(CROPS) == sorted(MAPS.files)
    assert max(map(len, CROPS.values())) == PAPER.exemplars.max_crops


def test_values_above_one_do_not_wrap_around() -> None:
    values = np.array([[0.0, 2.0], [4.0, 1.0]], np.float32)
    np.testing.assert_array_equal(to_8bit(values, MapScaling.TRUNCATE), [[0, 127], [255, 63]])


def test_negative_values_are_nothing_when_truncated() -> None:
    values = np.array([[-3.0, 0.5]], np.float32)
    np.testing.assert_array_equal(to_8bit(values, MapScaling.TRUNCATE), [[0, 127]])


def test_min_max_uses_the_whole_range_whatever_the_values() -> None:
    values = np.array([[-7.0, -5.0], [-6.0, -5.5]], np.float32)
    np.testing.assert_array_equal(to_8bit(values, MapScaling.MIN_MAX), [[0, 255], [128, 191]])


@pytest.mark.parametrize("scaling", list(MapScaling))
def test_constant_map_has_no_boxes(scaling: MapScaling) -> None:
    settings = replace(DEFAULT.exemplars, map_scaling=scaling)
    assert find_boxes(np.full((7, 7), 0.4, np.float32), (224, 224), settings) == []


def test_boxes_stop_at_the_limit() -> None:
    grid = np.zeros((28, 28), np.float32)
    grid[2::7, 2::7] = 1
    for limit in (0, 1, 3):
        settings = replace(DEFAULT.exemplars, max_crops=limit)
        assert len(find_boxes(grid, (224, 224), settings)) == limit


def test_iou_of_boxes() -> None:
    assert iou(Box(0, 0, 10, 10), Box(0, 0, 10, 10)) == 1
    assert iou(Box(0, 0, 10, 10), Box(5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou(Box(0, 0, 10, 10), Box(10, 0, 20, 10)) == 0


@pytest.mark.parametrize("size", [(640, 360), (300, 500), (224, 224)])
@pytest.mark.parametrize("cells", [14, 28])
def test_box_covers_a_bright_square_where_it_is_in_the_source(
    size: tuple[int, int], cells: int
) -> None:
    """The map is what a perfect unit answers to the square, at the network's resolution."""
    x0, y0, x1, _ = SEEN.seen_region(*size)
    side = (x1 - x0) / 5
    square = tuple(int(v) for v in (x0 + side, y0 + 2 * side, x0 + 2 * side, y0 + 3 * side))
    source = Image.new("L", size)
    source.paste(255, square)
    seen = SEEN.prepare(source.convert("RGB"))[:, :, 0].astype(np.float32)
    coarse = seen.reshape(cells, 224 // cells, cells, 224 // cells).mean((1, 3))

    (place,) = find_boxes(coarse, (224, 224), DEFAULT.exemplars)
    box = to_source_box(place, size, DEFAULT.exemplars, SEEN)
    cell = (x1 - x0) / cells
    for found, true in zip((box.x0, box.y0, box.x1, box.y1), square, strict=True):
        assert abs(found - true) <= cell
    crop = np.asarray(source.crop((box.x0, box.y0, box.x1, box.y1)))
    assert (crop == 255).sum() >= 0.8 * (np.asarray(source) == 255).sum()

    # By the published rule the box is off, since the map is stretched over the whole picture.
    (stretched,) = find_boxes(coarse, (375, 375), replace(PAPER.exemplars, max_image_iou=1.0))
    wrong = to_source_box(stretched, size, PAPER.exemplars, SEEN)
    assert iou(wrong, Box(*square)) < iou(box, Box(*square))


def test_padding_keeps_the_aspect_and_continues_the_rim() -> None:
    picture = Image.new("RGB", (40, 20), (200, 0, 0))
    picture.paste((0, 0, 255), (10, 5, 30, 15))
    square = np.asarray(fit_picture(picture, 80, CropFit.PAD))
    assert square.shape == (80, 80, 3)
    assert (square[:20] == (200, 0, 0)).all()
    assert (square[60:] == (200, 0, 0)).all()
    blue = np.argwhere(square[:, :, 2] > 128)
    (top, left), (bottom, right) = blue.min(0), blue.max(0) + 1
    assert (right - left) / (bottom - top) == pytest.approx(2.0, rel=0.1)


def test_squashing_fills_the_square() -> None:
    picture = Image.new("RGB", (40, 20), (200, 0, 0))
    assert (np.asarray(fit_picture(picture, 30, CropFit.SQUASH)) == (200, 0, 0)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (375, 375)])
@pytest.mark.parametrize("fit", list(CropFit))
def test_any_picture_becomes_a_square(size: tuple[int, int], fit: CropFit) -> None:
    assert fit_picture(Image.new("RGB", size), 375, fit).size == (375, 375)


def test_published_crop_is_cut_from_the_squashed_image() -> None:
    rng = np.random.default_rng(0)
    source = Image.fromarray(rng.integers(0, 256, (200, 300, 3), dtype=np.uint8))
    place = Box(30, 60, 130, 90)
    settings = PAPER.exemplars
    box = to_source_box(place, source.size, settings, SEEN)
    assert box == Box(24, 32, 104, 48)
    squashed = source.resize((375, 375), Image.Resampling.BICUBIC)
    expected = squashed.crop((30, 60, 130, 90)).resize((375, 375), Image.Resampling.BICUBIC)
    assert cut_picture(source, place, box, settings) == expected


def test_corrected_crop_has_the_resolution_of_the_source() -> None:
    rng = np.random.default_rng(0)
    source = Image.fromarray(rng.integers(0, 256, (200, 300, 3), dtype=np.uint8))
    settings = ExemplarSettings(size=64)
    shown = cut_picture(source, Box(0, 0, 1, 1), Box(100, 50, 164, 114), settings)
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(source)[50:114, 100:164])
