"""Phrases that captions share."""

from __future__ import annotations

import pytest

from dnd_services.summarizer.phrases import common_phrases, drop_article, phrase_key, singular

CAPTIONS = [
    "a red bird on a branch",
    "a drawing of a red bird",
    "two birds in a tree",
    "red birds and a white background",
    "a white background",
]


def test_phrases_are_those_of_most_captions_first() -> None:
    assert common_phrases(CAPTIONS, 8) == ["bird", "red bird"]


def test_number_of_phrases_is_bounded() -> None:
    assert common_phrases(CAPTIONS, 1) == ["bird"]
    assert common_phrases(CAPTIONS, 0) == []


def test_phrase_of_one_caption_does_not_count_however_often_it_stands_there() -> None:
    assert common_phrases(["dog dog dog and dog", "a cat", "a tree"], 3) == []


def test_part_of_a_phrase_is_left_out_when_it_stands_nowhere_else() -> None:
    assert common_phrases(["a stop sign", "one stop sign in a street"], 3) == ["stop sign"]


def test_longer_phrase_comes_first_when_both_are_as_common() -> None:
    captions = ["a fire truck and a moon", "fire truck, moon"]
    assert common_phrases(captions, 2) == ["fire truck", "moon"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("birds", "bird"),
        ("the red bird", "a red bird"),
        ("bird red", "red birds"),
        ("Boxes", "box"),
        ("cherries", "cherry"),
        ("women", "a woman"),
        ("horses", "horse"),
        ("shoes", "shoe"),
        ("buses", "bus"),
    ],
)
def test_key_is_equal_when_only_number_article_or_order_differ(one: str, other: str) -> None:
    assert phrase_key(one) == phrase_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("red bird", "bird"), ("glass", "glasses"), ("bird on tree", "bird in tree"), ("a", "the")],
)
def test_key_differs_when_meaning_does(one: str, other: str) -> None:
    assert phrase_key(one) != phrase_key(other)


@pytest.mark.parametrize("word", ["grass", "cactus", "iris", "gas", "lens", "moon"])
def test_word_that_is_singular_stays(word: str) -> None:
    assert singular(word) == word


def test_article_is_dropped_only_in_front_of_something() -> None:
    assert (drop_article("a bird"), drop_article("the"), drop_article("animal")) == (
        "bird",
        "the",
        "animal",
    )
