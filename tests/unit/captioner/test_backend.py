"""Captions of one picture do not depend on the others, and nonsense is no caption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from PIL import Image

from dnd.errors import BadAnswer, BadImage
from dnd.profiles import CaptionSettings
from dnd_services.captioner.backend import Captioner, Tokens, clean
from dnd_services.captioner.prompting import CHAT_PROMPT

Load = Callable[..., Captioner]
GREEDY = CaptionSettings(max_new_tokens=8, num_beams=1)
BEAMS = CaptionSettings(max_new_tokens=8, num_beams=3)
MODELS = ("blip", "blip2", "chat", "encoder_decoder")


def caption(
    captioner: Captioner, pictures: Sequence[Image.Image], settings: CaptionSettings = GREEDY
) -> list[Tokens]:
    items = [captioner.prepare(picture) for picture in pictures]
    return captioner.generate((settings, items[0].shapes), items)


@pytest.mark.parametrize("settings", [GREEDY, BEAMS], ids=["greedy", "beams"])
@pytest.mark.parametrize("name", MODELS)
def test_caption_equals_that_of_the_picture_alone_when_batched(
    load: Load, pictures: list[Image.Image], name: str, settings: CaptionSettings
) -> None:
    captioner = load(name)
    together = [str(captioner.read(row)) for row in caption(captioner, pictures, settings)]
    alone = [str(captioner.read(caption(captioner, [one], settings)[0])) for one in pictures]
    assert together == alone
    assert len(set(together)) > 1, "captions must depend on the picture"


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_equal_when_companions_and_row_differ_in_a_fixed_batch(
    load: Load, pictures: list[Image.Image], name: str
) -> None:
    captioner = load(name, fixed_batch=True)
    assert captioner.info.fixed_batch == len(pictures)
    alone = [caption(captioner, [picture])[0] for picture in pictures]
    assert caption(captioner, pictures) == alone
    assert caption(captioner, pictures[::-1]) == alone[::-1]
    assert caption(captioner, pictures[2:5]) == alone[2:5]


@pytest.mark.parametrize("fixed_batch", [True, False])
def test_scores_are_bitwise_equal_in_every_row_when_the_batch_is_fixed(
    load: Load,
    pictures: list[Image.Image],
    monkeypatch: pytest.MonkeyPatch,
    fixed_batch: bool,
) -> None:
    """Tokens hide small differences, so the numbers behind them are compared as well."""
    captioner = load("blip", fixed_batch=fixed_batch)
    model: Any = captioner._model
    generate, scores = model.generate, []

    def spy(**inputs: Any) -> torch.Tensor:
        answer = generate(**inputs, output_scores=True, return_dict_in_generate=True)
        scores.append(torch.stack(answer.scores))  # (tokens, rows, words)
        return torch.as_tensor(answer.sequences)

    monkeypatch.setattr(model, "generate", spy)
    caption(captioner, pictures)
    caption(captioner, pictures[::-1])
    caption(captioner, pictures[:1])
    first, turned, single = scores
    assert single.shape[1] == (len(pictures) if fixed_batch else 1)
    steps = min(len(first), len(turned), len(single))
    if fixed_batch:
        assert torch.equal(first[:steps], turned[:steps].flip(1))
        assert torch.equal(first[:steps, :1], single[:steps, :1])
    torch.testing.assert_close(first[:steps, :1], single[:steps, :1], rtol=0, atol=1e-4)


def test_pictures_of_other_tile_numbers_go_to_another_bucket(load: Load) -> None:
    captioner = load("chat")
    square, tall = (captioner.prepare(Image.new("RGB", size)) for size in ((40, 40), (40, 80)))
    assert square.shapes != tall.shapes
    assert square.shapes == captioner.prepare(Image.new("RGB", (60, 60))).shapes


def test_chat_model_is_asked_when_no_prompt_is_set(load: Load, pictures: list[Image.Image]) -> None:
    default, other = load("chat"), load("chat", "what is this")
    assert CHAT_PROMPT.split()[1] in _spelled(default)
    assert "what is this" in _spelled(other)
    assert caption(default, pictures) != caption(other, pictures)


def test_prompt_is_cut_off_when_the_model_repeats_it(
    load: Load, pictures: list[Image.Image]
) -> None:
    prompt = "a picture of"
    for name in ("blip", "blip2"):
        captioner = load(name, prompt)
        for tokens in caption(captioner, pictures):
            text = captioner.read(tokens)
            assert isinstance(text, str)
            assert not text.startswith(prompt)


def test_caption_has_the_least_number_of_tokens_when_the_model_would_stop_at_once(
    load: Load, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = load("blip")
    model: Any = captioner._model
    bias = model.text_decoder.cls.predictions.bias
    eager = bias.detach().clone()
    eager[model.config.text_config.sep_token_id] = 1e4
    monkeypatch.setattr(bias, "data", eager)
    (silent,) = caption(captioner, pictures[:1], CaptionSettings(max_new_tokens=8, min_length=0))
    assert isinstance(captioner.read(silent), BadAnswer)
    (tokens,) = caption(captioner, pictures[:1], CaptionSettings(max_new_tokens=8, min_length=5))
    assert len(tokens) == 1 + 4 + 1  # start, four words, end
    assert len(str(captioner.read(tokens)).split()) == 4


def test_caption_has_no_more_tokens_than_asked(load: Load, pictures: list[Image.Image]) -> None:
    settings = CaptionSettings(max_new_tokens=3, min_length=0)
    assert all(len(tokens) <= 1 + 3 for tokens in caption(load("blip"), pictures, settings))


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (2000, 2)])
@pytest.mark.parametrize("name", MODELS)
def test_sliver_has_a_caption(load: Load, name: str, size: tuple[int, int]) -> None:
    captioner = load(name)
    (tokens,) = caption(captioner, [Image.new("RGB", size, "red")])
    assert isinstance(captioner.read(tokens), str)


def test_picture_that_the_processor_refuses_is_a_bad_image(
    load: Load, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = load("blip")

    def refuse(image: Image.Image) -> None:
        raise ValueError("aspect ratio")

    monkeypatch.setattr(captioner._reader, "_process", refuse)
    with pytest.raises(BadImage, match=r"40 x 40 pixels: aspect ratio"):
        captioner.prepare(pictures[0])


def test_inputs_are_the_same_when_many_threads_prepare(
    load: Load, pictures: list[Image.Image]
) -> None:
    captioner = load("chat", "what is this")
    expected = [captioner.prepare(picture).inputs for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(captioner.prepare, pictures * 8))
    for item, inputs in zip(made, expected * 8, strict=True):
        assert all(torch.equal(item.inputs[name], inputs[name]) for name in inputs)


def test_weights_compute_in_the_number_type_that_is_set(
    load: Load, pictures: list[Image.Image]
) -> None:
    captioner = load("blip", dtype="bfloat16")
    assert captioner.info.dtype == "bfloat16"
    assert captioner.prepare(pictures[0]).inputs["pixel_values"].dtype == torch.bfloat16
    assert next(captioner._model.parameters()).dtype == torch.bfloat16
    assert isinstance(captioner.read(caption(captioner, pictures[:1])[0]), str)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("  a red\tapple \n", "a red apple"),
        ("a\x00 re\x07d", "a re d"),
        ("right\u202eleft\u200b", "right left"),
        ("\u00e9t\u00e9 \U0001f34e", "\u00e9t\u00e9 \U0001f34e"),
    ],
)
def test_caption_is_one_clean_line(given: str, expected: str) -> None:
    assert clean(given) == expected


def _spelled(captioner: Captioner) -> str:
    ids = captioner.prepare(Image.new("RGB", (40, 40))).inputs["input_ids"][0]
    return str(captioner._tokenizer.decode(ids, skip_special_tokens=True))
