"""Profiles are data: complete, overridable, and the same after a trip through JSON."""

import json

import pytest

from dnd import profiles
from dnd.errors import BadSetting, UnknownName
from dnd.profiles import PROFILES, BoxGeometry, MapScaling, ScoringFunction, get_profile


@pytest.mark.parametrize("name", PROFILES)
def test_profile_survives_json(name: str) -> None:
    profile = get_profile(name)
    assert profiles.from_json(profiles.to_json(profile)) == profile


def test_profile_from_before_there_were_percentiles_has_none() -> None:
    data = json.loads(profiles.to_json(get_profile("starter")))
    del data["calibration"]
    assert not profiles.from_json(json.dumps(data)).calibration.enabled


def test_paper_has_the_constants_of_the_paper() -> None:
    paper = get_profile("paper")
    assert paper.exemplars.num_images == paper.exemplars.num_exemplars == 10
    assert (paper.exemplars.max_crops, paper.exemplars.size) == (4, 375)
    assert (paper.exemplars.max_iou, paper.exemplars.max_image_iou) == (0.5, 0.8)
    assert paper.exemplars.map_scaling is MapScaling.TRUNCATE
    assert paper.exemplars.box_geometry is BoxGeometry.WHOLE_IMAGE
    assert (paper.propose.num_summaries, paper.propose.temperature) == (5, 0.3)
    assert (paper.synthesis.num_steps, paper.synthesis.guidance) == (50, 7.5)
    assert paper.score.function is ScoringFunction.TOPK_COMPARE
    assert (paper.score.beta, paper.score.absent_product, paper.score.show_at) == (5, -1.0, 32)


def test_empty_name_is_the_default() -> None:
    assert get_profile("") is profiles.DEFAULT


def test_override_replaces_one_setting() -> None:
    profile = get_profile("starter", {"synthesis.num_steps": "4", "score.function": "mean_rank"})
    assert profile.synthesis.num_steps == 4
    assert profile.score.function is ScoringFunction.MEAN_RANK
    assert profile.synthesis.guidance == profiles.STARTER.synthesis.guidance


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"synthesis.steps": "4"}, "'synthesis.steps'.*Did you mean 'synthesis.num_steps'"),
        ({"synthesis.num_steps": '"four"'}, "synthesis.num_steps = 'four': expected .*int"),
        ({"synthesis.num_steps": "true"}, "expected a value of type int, not bool"),
        ({"synthesis.size": "65"}, "synthesis.size = 65 .* out of its range"),
        ({"score.function": "best"}, "expected one of mean_rank"),
        ({"synthesis.prompt_template": "a picture"}, "prompt_template"),
        ({"index.keep_matrix": "false"}, "score.probe_correlation"),
        ({"calibration.threshold": "1.5"}, "calibration.threshold = 1.5 .* out of its range"),
        ({"calibration.num_concepts": "9"}, "calibration.num_concepts"),
        ({"caption.num_labels": "17"}, "caption.num_labels = 17 .* out of its range"),
        ({"propose.contrast": "17"}, "propose.contrast = 17 .* out of its range"),
        ({"propose.contrast": "3", "index.num_sample": "0"}, "expected index.num_sample and"),
        ({"propose.contrast": "3", "exemplars.num_per_decile": "0"}, "expected index.num_sample"),
    ],
)
def test_bad_override_is_refused_by_name(overrides: dict[str, str], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        get_profile("starter", overrides)


def test_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"Did you mean 'starter'.*paper, default, starter"):
        get_profile("startr")
