"""When a label counts as naming a unit's class."""

from __future__ import annotations

import pytest

from dnd.report.class_names import is_hit


@pytest.mark.parametrize(
    ("label", "class_name"),
    [
        ("syringe", "syringe"),
        ("cat face", "Egyptian cat"),
        ("Syringes", "syringe"),
        ("glass of wine", "wine bottle"),
        ("motor scooters", "moped, motor scooter"),
        ("butterflies", "monarch butterfly"),
        ("watches", "digital watch"),
        ("strawberry", "strawberries"),
    ],
)
def test_counts_a_hit_when_a_telling_word_is_shared(label: str, class_name: str) -> None:
    assert is_hit(label, class_name)


@pytest.mark.parametrize(
    ("label", "class_name"),
    [
        ("dog face", "Egyptian cat"),
        ("white circle", "great white shark"),  # a colour says little
        ("head of a man", "loaf of bread"),  # nor does "of"
        ("bus", "busy street"),
        ("", "syringe"),
        ("12", "12"),
        ("glass", "glas"),  # "ss" is no plural
        ("octopus", "octopu"),
    ],
)
def test_counts_a_miss_when_no_telling_word_is_shared(label: str, class_name: str) -> None:
    assert not is_hit(label, class_name)
