"""An embedding is that of its text or picture alone, and nothing else's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny.embedders import DIM, MAX_TOKENS
from transformers import AutoModel, AutoTokenizer

from dnd.errors import BadImage, Internal
from dnd_services.scorer.backend import ClipModel, Prepared, Vector

Load = Callable[..., ClipModel]
MODELS = ("clip", "siglip")
TEXTS = ("a red apple", "dog", "the moon and a star", "cat", "blue", "a big round house")


def embed(clip: ClipModel, items: Sequence[Prepared]) -> list[Vector]:
    """Embeddings of items of one bucket."""
    answers = clip.embed(items[0].bucket, items)
    return [answer for answer in answers if not isinstance(answer, Exception)]


def embed_texts(clip: ClipModel, texts: Sequence[str]) -> list[Vector]:
    return [embed(clip, [clip.prepare_text(text)])[0] for text in texts]


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_are_normalised_and_tell_inputs_apart(
    load: Load, pictures: list[Image.Image], name: str
) -> None:
    clip = load(name)
    found = np.array(
        embed_texts(clip, TEXTS) + embed(clip, [clip.prepare_image(p, 0) for p in pictures])
    )
    assert found.dtype == np.float32
    assert found.shape[0] == len(TEXTS) + len(pictures)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)
    cosines = found @ found.T - 2 * np.eye(len(found))
    assert cosines.max() < 0.9999


def test_dimension_is_the_models(load: Load) -> None:
    assert embed_texts(load("clip"), ["dog"])[0].shape == (DIM,)


@pytest.mark.parametrize("name", MODELS)
def test_text_embedding_equals_that_of_transformers_with_its_own_padding(
    load: Load, weights: Callable[[str], Path], name: str
) -> None:
    """Padding to a multiple of eight must not change what CLIP says; SigLIP is padded fully."""
    model = AutoModel.from_pretrained(weights(name)).eval()
    tokenizer = AutoTokenizer.from_pretrained(weights(name))
    for text in ("dog", "a red apple", "the the the the the the the the the the the the the"):
        padding = {"padding": "max_length"} if name == "siglip" else {}
        ids = tokenizer(
            text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt", **padding
        ).input_ids
        with torch.inference_mode():
            expected = model.get_text_features(input_ids=ids).pooler_output[0].numpy()
        expected = expected / np.linalg.norm(expected)
        (found,) = embed_texts(load(name), [text])
        assert found == pytest.approx(expected, abs=1e-5), text


@pytest.mark.parametrize("name", MODELS)
def test_embedding_equals_that_of_the_item_alone_when_batched(
    load: Load, pictures: list[Image.Image], name: str
) -> None:
    clip = load(name)
    images = [clip.prepare_image(picture, 0) for picture in pictures]
    texts = [clip.prepare_text(text) for text in ("dog", "cat", "red")]
    for items in (images, texts):
        alone = [embed(clip, [item])[0] for item in items]
        np.testing.assert_allclose(embed(clip, items), alone, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_bits_are_equal_when_companions_and_row_differ_in_a_fixed_batch(
    load: Load, pictures: list[Image.Image], name: str
) -> None:
    clip = load(name, fixed_batch=True)
    assert clip.info.fixed_batch == len(pictures)
    images = [clip.prepare_image(picture, 0) for picture in pictures]
    alone = np.array([embed(clip, [item])[0] for item in images])
    assert np.array_equal(embed(clip, images), alone)
    assert np.array_equal(embed(clip, images[::-1]), alone[::-1])
    assert np.array_equal(embed(clip, images[2:5]), alone[2:5])


def test_text_longer_than_the_model_takes_is_cut(load: Load) -> None:
    clip = load("clip")
    long, longer = clip.prepare_text("x" * 40), clip.prepare_text("x" * 900)
    assert long.inputs["input_ids"].shape == (1, MAX_TOKENS)
    assert torch.equal(long.inputs["input_ids"], longer.inputs["input_ids"])


def test_length_of_a_text_does_not_depend_on_texts_before_it(load: Load) -> None:
    clip = load("clip")
    before = clip.prepare_text("dog")
    clip.prepare_text("a text that is much longer than that")
    after = clip.prepare_text("dog")
    assert before.bucket == after.bucket
    assert torch.equal(before.inputs["input_ids"], after.inputs["input_ids"])


def test_inputs_are_the_same_when_many_threads_prepare(load: Load) -> None:
    clip = load("clip")
    expected = [clip.prepare_text(text).inputs for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(clip.prepare_text, TEXTS * 20))
    for item, inputs in zip(made, expected * 20, strict=True):
        assert all(torch.equal(item.inputs[key], inputs[key]) for key in inputs)


def test_picture_is_shrunk_first_when_asked(load: Load, pictures: list[Image.Image]) -> None:
    clip = load("clip")
    small = pictures[0].resize((8, 8), Image.Resampling.BICUBIC)
    shrunk = clip.prepare_image(pictures[0], 8).inputs["pixel_values"]
    assert torch.equal(shrunk, clip.prepare_image(small, 0).inputs["pixel_values"])
    assert not torch.equal(shrunk, clip.prepare_image(pictures[0], 0).inputs["pixel_values"])


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (2000, 2)])
@pytest.mark.parametrize("name", MODELS)
def test_sliver_has_an_embedding(load: Load, name: str, size: tuple[int, int]) -> None:
    clip = load(name)
    (vector,) = embed(clip, [clip.prepare_image(Image.new("RGB", size, "red"), 0)])
    assert np.isfinite(vector).all()


def test_picture_that_the_processor_refuses_is_a_bad_image(
    load: Load, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = load("clip")

    def refuse(**arguments: object) -> None:
        raise ValueError("aspect ratio")

    monkeypatch.setattr(clip, "_image_processor", refuse)
    with pytest.raises(BadImage, match=r"40 x 40 pixels: aspect ratio"):
        clip.prepare_image(pictures[0], 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_embedding_that_cannot_be_normalised_is_an_error_of_its_item(
    load: Load, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    clip = load("clip")
    items = [clip.prepare_image(picture, 0) for picture in pictures[:3]]
    features = torch.ones(3, DIM)
    features[1] = value
    monkeypatch.setattr(clip._model, "get_image_features", lambda **inputs: features)
    good, bad, also_good = clip.embed(items[0].bucket, items)
    assert isinstance(bad, Internal)
    assert "DND_DTYPE" in bad.message
    assert isinstance(good, np.ndarray)
    assert isinstance(also_good, np.ndarray)


def test_weights_compute_in_the_number_type_that_is_set(
    load: Load, pictures: list[Image.Image]
) -> None:
    clip = load("clip", dtype="bfloat16")
    item = clip.prepare_image(pictures[0], 0)
    assert item.inputs["pixel_values"].dtype == torch.bfloat16
    (vector,) = embed(clip, [item])
    assert vector.dtype == np.float32
    (exact,) = embed(load("clip"), [load("clip").prepare_image(pictures[0], 0)])
    assert vector == pytest.approx(exact, abs=0.05)
