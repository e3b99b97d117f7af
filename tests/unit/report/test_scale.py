"""Numbers as the report writes them."""

from __future__ import annotations

import pytest

from dnd.report.scale import Scale, format_bytes, format_duration, short


def test_writes_a_group_with_equal_decimals() -> None:
    scale = Scale.of([12.345, 0.0042, -3.2])
    assert [scale.text(v) for v in (12.345, 0.0042, -3.2, -0.001)] == ["12.3", "0.0", "−3.2", "0.0"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (1234.5, "1234"), (0.01234, "0.0123"), (-2e-7, "−2.0e−07")],
)
def test_writes_three_digits_when_a_number_stands_alone(value: float | None, text: str) -> None:
    assert short(value) == text


def test_places_values_between_the_ends_of_their_group() -> None:
    scale = Scale.of([2.0, 4.0])
    assert [scale.fraction(v) for v in (2.0, 3.0, 4.0)] == [0.0, 0.5, 1.0]
    assert Scale.of([1.0, 1.0]).fraction(1.0) == 0.0
    assert Scale.of([1.0]).fraction(1.0, flat=1.0) == 1.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.21, "3.2 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (252, "4 min 12 s"),
        (12_000, "3 h 20 min"),
    ],
)
def test_says_durations_as_people_do(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (999_600, "1 MB"), (2_340_000_000, "2.34 GB")],
)
def test_says_sizes_in_powers_of_ten(num_bytes: int, text: str) -> None:
    assert format_bytes(num_bytes) == text
    assert format_bytes(1_200_000 * 10**9) == "1,200.0 TB"
