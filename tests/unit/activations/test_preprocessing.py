"""What a network sees of a picture, and where that lies in the picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from unit.activations.conftest import draw

from dnd.errors import InvalidInput
from dnd.types import Box
from dnd_services.activations.hf_models import read_processor
from dnd_services.activations.preprocessing import Preprocessing


@pytest.mark.parametrize(
    "processor",
    [
        ViTImageProcessorPil(size={"height": 32, "width": 32}),
        ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.875),
        ConvNextImageProcessorPil(size={"shortest_edge": 400}),
        BitImageProcessorPil(
            size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}, resample=2
        ),
    ],
    ids=["squashed", "share-cut-out", "large-is-squashed", "edge-then-cut"],
)
@pytest.mark.parametrize("size", [(61, 47), (47, 61), (40, 40), (20, 90)])
def test_pictures_are_seen_as_transformers_shows_them(
    processor: object, size: tuple[int, int]
) -> None:
    picture = draw(1, size)
    expected = processor(picture, return_tensors="np")["pixel_values"][0]  # type: ignore[operator]
    ours = read_processor(processor)
    found = ours.prepare(picture).astype(np.float32) * ours.scale
    found = ((found - ours.mean) / ours.std).transpose(2, 0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_processor_that_leaves_sizes_as_they_are_is_refused() -> None:
    with pytest.raises(InvalidInput, match="python:"):
        read_processor(ViTImageProcessorPil(do_resize=False))


def test_network_sees_the_middle_when_the_picture_is_wide() -> None:
    seen = Preprocessing(size=(100, 100), shortest_edge=100)
    assert seen.seen_region(200, 100) == (50, 0, 150, 100)
    assert seen.to_source(Box(0, 0, 100, 100), 200, 100) == Box(50, 0, 150, 100)
    assert seen.to_source(Box(10, 20, 30, 40), 200, 100) == Box(60, 20, 80, 40)


def test_rim_is_not_seen_when_less_is_cut_out_than_was_scaled() -> None:
    seen = Preprocessing(size=(224, 224), shortest_edge=256)
    assert seen.seen_region(512, 512) == (32, 32, 480, 480)


def test_whole_picture_is_seen_when_it_is_squashed() -> None:
    seen = Preprocessing(size=(10, 20), shortest_edge=None)
    assert seen.to_source(Box(0, 0, 20, 10), 77, 33) == Box(0, 0, 77, 33)


def test_region_of_the_source_is_whole_pixels_around_the_box() -> None:
    seen = Preprocessing(size=(10, 10), shortest_edge=None)
    assert seen.to_source(Box(1, 1, 2, 2), 25, 25) == Box(2, 2, 5, 5)
    # Never empty, even where a pixel of the input is less than one of the source.
    assert seen.to_source(Box(9, 9, 10, 10), 3, 3) == Box(2, 2, 3, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 30000), (30000, 1), (3, 500)])
def test_strips_are_prepared_without_a_giant_intermediate(size: tuple[int, int]) -> None:
    seen = Preprocessing(size=(224, 224), shortest_edge=256)
    pixels = seen.prepare(Image.new("RGB", size, (10, 20, 30)))
    assert pixels.shape == (224, 224, 3)
    assert (pixels == (10, 20, 30)).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (0, 5)},
        {"size": (224, 224), "shortest_edge": 200},
        {"resample": "cubic"},
        {"std": (1.0, 0.0, 1.0)},
        {"mean": (1.0,)},
    ],
)
def test_bad_preprocessing_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="Preprocessing"):
        Preprocessing(**wrong)  # type: ignore[arg-type]
