"""Keys and seeds depend on what they name, and on nothing else."""

import hashlib
from dataclasses import replace

import pytest

from dnd import keys
from dnd.profiles import Pooling, SynthesisSettings, get_profile


def test_image_set_key_changes_with_everything_it_depends_on() -> None:
    settings = SynthesisSettings()
    base = keys.image_set_key("a cat", settings, "d" * 64)
    others = {
        keys.image_set_key("a dog", settings, "d" * 64),
        keys.image_set_key("a cat", replace(settings, num_steps=7), "d" * 64),
        keys.image_set_key("a cat", replace(settings, seed=1), "d" * 64),
        keys.image_set_key("a cat", settings, "e" * 64),
    }
    assert len(others | {base}) == 5
    assert keys.image_set_key("a cat", SynthesisSettings(), "d" * 64) == base


def test_digest_depends_on_contents_and_not_on_the_order_of_names() -> None:
    assert keys.digest_of({"a": 1, "b": 2}) == keys.digest_of({"b": 2, "a": 1})
    assert keys.digest_of("a", "b") != keys.digest_of("ab")


def test_seeds_fit_into_63_bits_and_differ() -> None:
    seeds = {keys.drawing_seed(0, "a cat", index) for index in range(1000)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert keys.unit_seed(0, "m", "l", 1) != keys.unit_seed(1, "m", "l", 1)


def test_raised_version_makes_old_results_of_that_stage_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = keys.stage_key("measure", "x"), keys.stage_key("index", "x")
    monkeypatch.setitem(keys.STAGE_VERSIONS, "measure", 99)
    assert keys.stage_key("measure", "x") != before[0]
    assert keys.stage_key("index", "x") == before[1]


def test_settings_within_settings_count_down_to_the_last_choice() -> None:
    paper = get_profile("paper")
    other = replace(paper, index=replace(paper.index, pooling=Pooling.MAX))
    assert keys.digest_of(paper) != keys.digest_of(other)
    assert keys.digest_of(paper) == keys.digest_of(get_profile("paper"))


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object()])
def test_value_without_a_canonical_form_cannot_be_part_of_a_key(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be part of a key"):
        keys.digest_of("a", value)


def test_key_is_the_same_in_every_process_and_release() -> None:
    """Results of earlier releases are found by these; change a stage's version on purpose only."""
    assert (
        keys.digest_of("a", 1, 2.5, None, [True])
        == hashlib.sha256(b'["a",1,2.5,null,[true]]').hexdigest()
    )
    assert keys.drawing_seed(0, "a cat", 1) == 8380177962024749218
