"""Dead, tied and sparse units are found before anything is spent on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from unit.activations.conftest import Indexer

from dnd.profiles import IndexSettings
from dnd.types import UnitActivity
from dnd_services.activations.merge import classify_units, open_index
from dnd_services.activations.network import Network
from dnd_services.activations.statistics import RunningSummary

DEAD, TIED, SPARSE, LIVE = (
    UnitActivity.DEAD,
    UnitActivity.TIED,
    UnitActivity.SPARSE,
    UnitActivity.LIVE,
)


def classify(values: list[float], num_judge: int = 0) -> UnitActivity:
    """The activity of one unit; the last `num_judge` images are in the judge half."""
    running = RunningSummary(1, 11, torch.device("cpu"))
    judge = torch.arange(len(values)) >= len(values) - num_judge
    running.update(
        torch.tensor(values)[:, None],
        torch.arange(len(values)),
        judge,
        torch.zeros(len(values), dtype=torch.bool),
    )
    (found,) = classify_units(running.finish())
    return found


@pytest.mark.parametrize(
    ("values", "activity"),
    [
        ([0.0] * 20, DEAD),
        ([7.5] * 20, DEAD),
        ([-7.5] * 20, DEAD),
        ([1e6] * 19 + [1e6 + 0.5], DEAD),  # a range of 5e-7 of the largest magnitude
        ([1e6] * 9 + [1e6 + 10.0 * n for n in range(1, 12)], LIVE),
        ([1e-9 * n for n in range(20)], LIVE),  # small, but its range is as large as its values
        ([-float(n) for n in range(20)], LIVE),
        ([0.0] * 5 + [3.0] * 15, TIED),
        ([0.0] * 5 + [5.0] * 9 + [3.0] * 6, TIED),  # the 10th and 11th are equal
        ([0.0] * 5 + [5.0] * 10 + [3.0] * 5, LIVE),  # the 10th and 11th differ
        ([0.0] * 10 + [float(n) for n in range(1, 11)], LIVE),  # ten, and the 11th is the minimum
        ([0.0] * 11 + [float(n) for n in range(1, 10)], SPARSE),
        ([0.0] * 11 + [4.0] * 9, SPARSE),  # a tie at the minimum is none at the top
        ([0.0] * 19 + [1.0], SPARSE),
        ([float(n) for n in range(10)], SPARSE),  # fewer images than a live unit needs
    ],
)
def test_activity_follows_from_the_values(values: list[float], activity: UnitActivity) -> None:
    assert classify(values) is activity
    assert classify(values[::-1]) is activity


def test_unit_is_not_dead_when_only_the_judge_half_excites_it() -> None:
    assert classify([0.0] * 20 + [1.0] * 5, num_judge=5) is SPARSE


def test_tie_is_looked_for_in_the_select_half() -> None:
    values = [float(n) for n in range(12)]
    assert classify([*values, *[100.0] * 15], num_judge=15) is LIVE
    assert classify([*values, *[100.0] * 15]) is TIED


def test_planted_units_are_found_in_an_index(planted: Network, indexer: Indexer) -> None:
    """Units: a constant, "is it bright" (0 or 1), "how red" (of red pictures), brightness."""
    folder = indexer.store.root.parent / "probe"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(60):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((50, 50)).save(folder / f"{number}.png")
    for number in range(7):
        Image.new("RGB", (50, 50), (249 + number, 0, 0)).save(folder / f"red{number}.png")
        Image.new("RGB", (50, 50), (number, 0, 0)).save(folder / f"black{number}.png")
    settings = IndexSettings(top_k=11)
    (found,) = indexer.index(planted, ["scalars"], folder, settings, shards=4)
    assert found.activities == (DEAD, TIED, SPARSE, LIVE)

    record = open_index(indexer.store, found.index_ref)
    top = record.top_images(2)
    assert 3 <= len(top) <= 7
    assert all(value > 0 for _, value in top)
    assert record.activities == found.activities
