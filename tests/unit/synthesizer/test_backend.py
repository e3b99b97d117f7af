"""A drawing depends on its own prompt and seed, and on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from dnd.errors import BadAnswer, BadSetting, Cancelled, InvalidInput
from dnd.profiles import SynthesisSettings
from dnd.types import Drawing
from dnd_services.synthesizer.backend import Synthesizer
from dnd_services.synthesizer.schedulers import SCHEDULERS

Load = Callable[..., Synthesizer]
PIPELINES = ("sd", "sdxl", "lcm")
DRAWINGS = (
    Drawing("red apple", 1),
    Drawing("red apple", 2),
    Drawing("blue dog", 1),
    Drawing("moon", 2**64 - 1),
)


def settings(**changes: Any) -> SynthesisSettings:
    values: dict[str, Any] = {"num_steps": 3, "guidance": 2.5, "size": 64, "scheduler": "model"}
    return SynthesisSettings(**(values | changes))


def draw(synthesizer: Synthesizer, drawings: Sequence[Drawing], **changes: Any) -> list[np.ndarray]:
    pictures = synthesizer.draw(settings(**changes), drawings)
    assert all(isinstance(picture, Image.Image) for picture in pictures), pictures
    return [np.asarray(picture).astype(int) for picture in pictures]


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


@pytest.mark.parametrize("name", PIPELINES)
def test_drawing_equals_the_same_alone_when_batched_with_other_prompts(
    load: Load, name: str
) -> None:
    synthesizer = load(name)
    together = draw(synthesizer, DRAWINGS)
    for drawing, picture in zip(DRAWINGS, together, strict=True):
        (alone,) = draw(synthesizer, [drawing])
        assert np.abs(alone - picture).max() <= 1  # the last bit of 8 may round the other way


@pytest.mark.parametrize("name", PIPELINES)
def test_drawing_is_bitwise_equal_when_companions_and_row_differ_in_a_fixed_batch(
    load: Load, name: str
) -> None:
    synthesizer = load(name, fixed_batch=True)
    assert synthesizer.info.fixed_batch == len(DRAWINGS)
    alone = [draw(synthesizer, [drawing])[0] for drawing in DRAWINGS]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0], [1, 3, 2]):
        for index, picture in zip(
            order, draw(synthesizer, [DRAWINGS[i] for i in order]), strict=True
        ):
            assert np.array_equal(picture, alone[index]), (index, order)


@pytest.mark.parametrize("name", PIPELINES)
def test_prompt_seed_and_guidance_each_change_the_drawing(load: Load, name: str) -> None:
    synthesizer = load(name)
    apple, other_seed, dog, _ = draw(synthesizer, DRAWINGS)
    assert difference(apple, other_seed) > 10
    assert difference(apple, dog) > 1
    (unguided,) = draw(synthesizer, DRAWINGS[:1], guidance=0.0)
    assert difference(apple, unguided) > 0.5
    assert apple.shape == (64, 64, 3)


def test_guidance_of_zero_and_one_are_the_same(load: Load) -> None:
    synthesizer = load("sd")
    (zero,), (one,) = (draw(synthesizer, DRAWINGS[:1], guidance=g) for g in (0.0, 1.0))
    assert np.array_equal(zero, one)


def test_drawing_equals_that_of_diffusers_from_the_same_noise(load: Load) -> None:
    synthesizer = load("sd")
    (ours,) = draw(synthesizer, DRAWINGS[:1], scheduler="ddim")
    pipeline: Any = synthesizer._pipeline
    pipeline.scheduler = DDIMScheduler.from_config(
        synthesizer._own_scheduler.config, clip_sample=False
    )
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(DRAWINGS[0].seed))
    (theirs,) = pipeline(
        DRAWINGS[0].prompt,
        latents=noise,
        num_inference_steps=3,
        guidance_scale=2.5,
        height=64,
        width=64,
    ).images
    assert np.array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize("scheduler", [name for name in SCHEDULERS if name != "model"])
def test_scheduler_keeps_what_the_network_predicts(load: Load, scheduler: str) -> None:
    synthesizer = load("sd")
    (picture,) = draw(synthesizer, DRAWINGS[:1], scheduler=scheduler)
    used: Any = synthesizer._pipeline.scheduler
    assert used.config.prediction_type == "v_prediction"
    assert used.config.beta_schedule == "scaled_linear"
    assert type(used) is not type(synthesizer._own_scheduler)
    assert picture.std() > 1


def test_prompt_is_embedded_once_however_often_it_is_drawn(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesizer = load("sdxl")
    pipeline: Any = synthesizer._pipeline
    encode, asked = pipeline.encode_prompt, []

    def spy(prompt: str | None = None, **options: Any) -> Any:
        asked.extend([] if prompt is None else [prompt])
        return encode(prompt=prompt, **options)

    monkeypatch.setattr(pipeline, "encode_prompt", spy)
    prompts = ["yellow star", "yellow star", "green boat", "yellow star"]
    for _ in range(2):
        draw(synthesizer, [Drawing(prompt, i) for i, prompt in enumerate(prompts)])
    assert sorted(set(asked)) == sorted(asked)
    assert {"yellow star", "green boat"} <= set(asked)


def test_prompt_that_the_text_encoder_cannot_see_fails_alone(load: Load) -> None:
    synthesizer = load("sdxl")
    good, bad = synthesizer.draw(
        settings(), [DRAWINGS[0], Drawing("many letters make many tokens", 1)]
    )
    assert isinstance(bad, InvalidInput)
    assert "sees 16" in bad.message
    (alone,) = draw(synthesizer, DRAWINGS[:1])
    assert np.abs(np.asarray(good).astype(int) - alone).max() <= 1


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "no numbers"), (-9.0, "black")])
def test_failed_drawing_is_a_bad_answer_and_its_companions_are_whole(
    load: Load, monkeypatch: pytest.MonkeyPatch, value: float, message: str
) -> None:
    synthesizer = load("sd")
    whole = draw(synthesizer, DRAWINGS)
    vae: Any = synthesizer._pipeline.vae
    decode = vae.decode

    def spoil(latents: torch.Tensor, **options: Any) -> Any:
        (pixels,) = decode(latents, **options)
        pixels[1] = value
        return (pixels,)

    monkeypatch.setattr(vae, "decode", spoil)
    pictures = synthesizer.draw(settings(), DRAWINGS)
    spoiled = pictures.pop(1)
    del whole[1]
    assert isinstance(spoiled, BadAnswer)
    assert message in spoiled.message
    for picture, expected in zip(pictures, whole, strict=True):
        assert np.array_equal(np.asarray(picture), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 60}, "multiple of 8"),
        ({"size": 0}, "multiple of 8"),
        ({"size": -64}, "multiple of 8"),
        ({"size": 4096}, "8 to 2048"),
        ({"guidance": -1.0}, "guidance is -1.0"),
        ({"guidance": 0.5}, "guidance is 0.5"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"scheduler": "dpm"}, r"'dpm': expected one of 'dpmsolver\+\+', 'ddim'"),
        ({"scheduler": ""}, "scheduler is ''"),
        ({"scheduler": "lcm", "num_steps": 60}, "num_steps is 60: scheduler 'lcm'"),
    ],
)
def test_bad_setting_is_named(load: Load, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        load("sd").check(settings(**changes))


def test_scheduler_that_the_pipeline_cannot_use_is_refused(load: Load) -> None:
    with pytest.raises(BadSetting, match="expected one of 'lcm', 'model'"):
        load("lcm").check(settings(scheduler="euler"))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_good_settings_pass(load: Load, scheduler: str) -> None:
    load("sd").check(settings(scheduler=scheduler, num_steps=10))


def test_weights_compute_in_the_number_type_that_is_set(load: Load) -> None:
    synthesizer, exact = load("sd", dtype="bfloat16"), load("sd")
    assert synthesizer.info.dtype == "bfloat16"
    assert synthesizer._pipeline.unet.dtype == torch.bfloat16
    (rough,), (fine,) = (draw(one, DRAWINGS[:1]) for one in (synthesizer, exact))
    assert difference(rough, fine) < 3, "the noise must be the same in every number type"


@pytest.mark.parametrize("name", PIPELINES)
def test_drawing_stops_at_its_next_step_when_nobody_waits_for_it(load: Load, name: str) -> None:
    synthesizer = load(name)
    asked: list[int] = []

    def is_abandoned() -> bool:
        asked.append(1)
        return len(asked) == 2

    with pytest.raises(Cancelled, match="stopped after step 2"):
        synthesizer.draw(settings(num_steps=4), DRAWINGS, is_abandoned)
    assert len(asked) == 2
