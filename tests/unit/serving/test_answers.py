"""Labels from what language models say."""

from __future__ import annotations

import pytest

from dnd.serving.answers import (
    Dropped,
    clean_text,
    listed_labels,
    parse_caption,
    parse_label,
    parse_labels,
)

INSTRUCTIONS = "You are given captions of pictures. Answer with one short label, at most two lines."


def parse(answer: str, *, finished: bool = True) -> str | Dropped:
    return parse_label(answer, finished=finished, instructions=INSTRUCTIONS)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("water", "water"),
        ("  Water.\n", "water"),
        ('"Person Riding"', "person riding"),
        ("“yellow things”", "yellow things"),
        ("Label: water", "water"),
        ("Label:\nwater", "water"),
        ("\n\nbird\nbirds on branches", "bird"),
        ("**Bird**", "bird"),
        ("1. bird\n2. owl", "bird"),
        ("- red bird", "red bird"),
        ("red bird, blue sky, tree", "red bird"),
        ("red bird; blue sky", "red bird"),
        ("red bird. It sits on a branch.", "red bird"),
        ("Sure, water", "water"),
        ("Sure! The label is water.", "water"),
        ("The common label is: water", "water"),
        ("<think>They are all wet.\nSo: water</think>\nwater", "water"),
        ("person riding a", "person riding"),
        ("a black-and-white cat", "a black-and-white cat"),
        ("cat's ear", "cat's ear"),
        ("bird bird bird", "bird"),
        ("дерево", "дерево"),
        ("red\u200b \x07bird", "red bird"),
        ("3d shapes", "3d shapes"),
    ],
)
def test_label_is_cleaned(answer: str, label: str) -> None:
    assert parse(answer) == label


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        (" \n\t\n", "empty"),
        ("...", "empty"),
        ("12", "no word"),
        ("the", "no word"),
        ("<think>this never ends", "empty"),
        ("I'm sorry, but I cannot help with that.", "refused"),
        ("As an AI I have no eyes", "refused"),
        ("None", "refused"),
        ("Nothing in common", "refused"),
        ("the captions of these pictures", "repeats the instructions"),
        ("one short label", "repeats the instructions"),
        ("Label", "repeats the instructions"),
        ("at most two lines", "repeats the instructions"),
        ("a man in a red coat on a horse", "more than 5 words"),
        ("b" * 31, "no word"),
    ],
)
def test_nonsense_is_dropped_with_a_reason(answer: str, reason: str) -> None:
    dropped = parse(answer)
    assert isinstance(dropped, Dropped)
    assert reason in dropped.reason


def test_answer_is_dropped_when_it_was_cut_inside_its_label() -> None:
    assert isinstance(parse("a person rid", finished=False), Dropped)
    assert parse("a person\nrid", finished=False) == "a person"
    assert parse("a person, rid", finished=False) == "a person"


def test_labels_of_one_answer_are_one_a_line() -> None:
    answer = "Labels:\n1. Stripes\n2) black and white lines.\n- I cannot say\n* zebra"
    labels = parse_labels(answer, finished=True, instructions=INSTRUCTIONS)
    assert [label for label in labels if isinstance(label, str)] == [
        "stripes",
        "black and white lines",
        "zebra",
    ]
    assert len(labels) == 4


def test_labels_of_one_answer_are_split_at_commas_when_they_share_a_line() -> None:
    labels = parse_labels("stripes, zebra, lin", finished=False, instructions=INSTRUCTIONS)
    assert labels[:2] == ["stripes", "zebra"]
    assert isinstance(labels[2], Dropped)


def test_lists_are_recognized() -> None:
    assert listed_labels("Label: oak, palm tree,\nbush") == ["oak", "palm tree"]
    assert listed_labels("water") == ["water"]


def test_simplified_caption_is_one_line_or_nothing() -> None:
    assert parse_caption("Caption: a red bird, on a tree.\nThat is all.") == "a red bird, on a tree"
    assert parse_caption("Sorry, I cannot see the picture") == ""
    assert parse_caption("…") == ""


def test_text_is_cleaned_of_quotes_and_final_punctuation() -> None:
    assert clean_text(" «A  Red`Bird»!? ") == "a redbird"
