"""Keys and seeds depend on what they name, and on nothing else."""

from dataclasses import replace

from dnd import keys
from dnd.profiles import SynthesisSettings


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
