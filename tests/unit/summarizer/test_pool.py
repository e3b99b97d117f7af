"""The pool of candidates: order, origins, repeats, size."""

from __future__ import annotations

from dataclasses import replace

from dnd.profiles import ProposeSettings
from dnd.serving.answers import Dropped
from dnd.types import Candidate, CandidateOrigin
from dnd_services.summarizer.pool import build_pool

SUMMARY, BACKGROUND = CandidateOrigin.SUMMARY, CandidateOrigin.BACKGROUND
PHRASE, CONCEPT = CandidateOrigin.CAPTION_PHRASE, CandidateOrigin.CONCEPT_SET
SETTINGS = ProposeSettings(num_captions=0, num_phrases=2, max_candidates=8)
CAPTIONS = ["a red bird", "a red bird in a tree", "an owl in a tree", "a bird"]
GIVEN = [Candidate("Feathers", CONCEPT), Candidate("owl", CONCEPT)]


def pairs(*args: object) -> list[tuple[str, CandidateOrigin]]:
    pool = build_pool(*args)  # type: ignore[arg-type]
    return [(one.text, one.origin) for one in pool.candidates]


def test_origins_come_in_order() -> None:
    assert pairs(["owl", "animal"], CAPTIONS, GIVEN, SETTINGS) == [
        ("owl", SUMMARY),
        ("animal", SUMMARY),
        ("feathers", CONCEPT),
        ("bird", PHRASE),
        ("red bird", PHRASE),
    ]


def test_captions_of_a_label_s_length_stand_for_themselves() -> None:
    captions = [
        "a zebra, a mammal, animal",
        "a very long tale of two cities and a river",
        "Zebras, animal",
        "the llama.",
        "an owl",
    ]
    settings = replace(SETTINGS, num_captions=3, num_phrases=0)
    assert pairs(["animal"], captions, GIVEN[:1], settings) == [
        ("animal", SUMMARY),
        ("feathers", CONCEPT),
        ("zebra", CandidateOrigin.CAPTION),
        ("llama", CandidateOrigin.CAPTION),
    ]


def test_near_duplicates_keep_the_text_and_origin_that_was_seen_first() -> None:
    labels = ["the birds", "bird", "tree with owls", "owl with trees"]
    assert pairs(labels, CAPTIONS, [], SETTINGS) == [
        ("birds", SUMMARY),
        ("tree with owls", SUMMARY),
        ("red bird", PHRASE),
    ]


def test_only_equal_texts_are_repeats_when_nothing_is_merged() -> None:
    settings = replace(SETTINGS, merge_near_duplicates=False, num_phrases=0)
    labels = ["a bird", "bird", "birds", "bird"]
    assert pairs(labels, CAPTIONS, [], settings) == [
        ("a bird", SUMMARY),
        ("bird", SUMMARY),
        ("birds", SUMMARY),
    ]


def test_pattern_words_add_a_background() -> None:
    labels = ["blue graphic design", "designer chair", "abstract graphics"]
    settings = replace(SETTINGS, num_phrases=0)
    assert pairs(labels, CAPTIONS, [], settings) == [
        ("blue graphic design", SUMMARY),
        ("blue graphic design background", BACKGROUND),
        ("designer chair", SUMMARY),
        ("abstract graphics", SUMMARY),
        ("abstract graphics background", BACKGROUND),
    ]
    settings = replace(settings, add_background=False)
    assert {origin for _, origin in pairs(labels, CAPTIONS, [], settings)} == {SUMMARY}


def test_size_is_bounded_and_what_is_left_out_has_a_reason() -> None:
    settings = replace(SETTINGS, max_candidates=2)
    nonsense = Dropped("", "it is empty")
    pool = build_pool(["owl", nonsense, "owls", "animal", "wing"], CAPTIONS, [], settings)
    assert [one.text for one in pool.candidates] == ["owl", "animal"]
    assert pool.dropped[0] is nonsense
    assert [(one.text, one.reason) for one in pool.dropped[1:]] == [
        ("owls", "it repeats 'owl'"),
        ("wing", "the pool is full"),
        ("bird", "the pool is full"),
        ("red bird", "the pool is full"),
    ]


def test_pool_without_a_summary_says_so() -> None:
    assert not build_pool([Dropped("", "it is empty")], CAPTIONS, GIVEN, SETTINGS).has_summary
    assert build_pool(["owl"], CAPTIONS, GIVEN, SETTINGS).has_summary
