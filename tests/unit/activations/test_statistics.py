"""Running statistics equal those of all images at once, whatever the batches, shards and order."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dnd_services.activations.statistics import (
    JUDGE,
    NUM_BINS,
    SELECT,
    RunningSummary,
    Summary,
    histogram_edges,
)

NUM_IMAGES, NUM_UNITS, TOP_K = 97, 4, 12
RNG = np.random.default_rng(5)
JUDGES = RNG.random(NUM_IMAGES) < 0.3
SAMPLED = ~JUDGES & (np.arange(NUM_IMAGES) < 40)
VALUES = RNG.normal(size=(NUM_IMAGES, NUM_UNITS)).astype(np.float32)
VALUES[:, 1] = np.round(VALUES[:, 1])  # many equal ones
VALUES[:, 2] = np.maximum(VALUES[:, 2] - 2, 0)  # hardly ever above zero
VALUES[:, 3] = 2.5
COUNTED = ("count", "low", "high", "zeros", "histogram")
CHOSEN = ("top_values", "top_images", "sample_values", "sample_images")


def summarize(first: int, last: int, batch: int) -> Summary:
    running = RunningSummary(NUM_UNITS, TOP_K, torch.device("cpu"))
    for start in range(first, last, batch):
        rows = slice(start, min(start + batch, last))
        running.update(
            torch.from_numpy(VALUES[rows]),
            torch.arange(rows.start, rows.stop),
            torch.from_numpy(JUDGES[rows]),
            torch.from_numpy(SAMPLED[rows]),
        )
    return running.finish()


def assert_same(one: Summary, other: Summary) -> None:
    """Exactly for what is counted or chosen; means and variances to rounding in float64."""
    for name in COUNTED + CHOSEN:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("mean", "m2"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 7, 200])
def test_summary_equals_that_of_all_images_at_once(batch: int) -> None:
    summary = summarize(0, NUM_IMAGES, batch)
    for half, rows in ((SELECT, VALUES[~JUDGES]), (JUDGE, VALUES[JUDGES])):
        exact = rows.astype(np.float64)
        assert summary.count[half] == len(rows)
        np.testing.assert_allclose(summary.mean[half], exact.mean(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(
            summary.m2[half] / len(rows), exact.var(0), rtol=1e-9, atol=1e-12
        )
        np.testing.assert_array_equal(summary.low[half], rows.min(0))
        np.testing.assert_array_equal(summary.high[half], rows.max(0))
        np.testing.assert_array_equal(summary.zeros[half], (rows == 0).sum(0))
        for unit in range(NUM_UNITS):
            bins = np.digitize(rows[:, unit], histogram_edges())
            expected = np.bincount(bins, minlength=NUM_BINS)
            np.testing.assert_array_equal(summary.histogram[half, unit], expected)


@pytest.mark.parametrize("batch", [1, 7, 200])
def test_top_images_are_of_the_select_half_and_lower_numbers_win_ties(batch: int) -> None:
    summary = summarize(0, NUM_IMAGES, batch)
    select = np.flatnonzero(~JUDGES)
    for unit in range(NUM_UNITS):
        order = sorted(select, key=lambda n: (-VALUES[n, unit], n))[:TOP_K]
        assert summary.top_images[unit].tolist() == order
        np.testing.assert_array_equal(summary.top_values[unit], VALUES[order, unit])


def test_sample_is_kept_as_it_is() -> None:
    summary = summarize(0, NUM_IMAGES, 10)
    np.testing.assert_array_equal(summary.sample_images, np.flatnonzero(SAMPLED))
    np.testing.assert_array_equal(summary.sample_values, VALUES[SAMPLED])


def fold(parts: Sequence[Summary], rng: random.Random) -> Summary:
    """Merges neighbours at random until one is left: any bracketing of this order."""
    parts = list(parts)
    while len(parts) > 1:
        place = rng.randrange(len(parts) - 1)
        parts[place : place + 2] = [parts[place].merge(parts[place + 1])]
    return parts[0]


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.sets(st.integers(1, NUM_IMAGES - 1), max_size=8),
    batch=st.integers(1, 40),
    seed=st.integers(0, 2**16),
)
def test_any_sharding_order_and_bracketing_gives_the_same(
    cuts: set[int], batch: int, seed: int
) -> None:
    edges = [0, *sorted(cuts), NUM_IMAGES]
    shards = [summarize(a, b, batch) for a, b in itertools.pairwise(edges)]
    rng = random.Random(seed)
    rng.shuffle(shards)
    assert_same(fold(shards, rng), summarize(0, NUM_IMAGES, NUM_IMAGES))


def test_places_stay_empty_when_there_are_fewer_images() -> None:
    few = [summarize(start, start + 3, 2) for start in (0, 3)]
    merged = functools.reduce(Summary.merge, few)
    num_select = int((~JUDGES[:6]).sum())
    assert 0 < num_select < TOP_K
    assert (merged.top_images[:, num_select:] == -1).all()
    assert np.isneginf(merged.top_values[:, num_select:]).all()
    assert (merged.top_images[:, :num_select] >= 0).all()


def test_half_without_images_merges_to_the_other() -> None:
    one = int(np.flatnonzero(~JUDGES)[0])
    only_select = summarize(one, one + 1, 1)
    assert only_select.count.tolist() == [1, 0]
    assert_same(only_select.merge(summarize(0, 0, 1)), only_select)
    assert_same(summarize(0, 0, 1).merge(only_select), only_select)


def test_summary_comes_back_from_bytes_and_has_the_same_ones_again() -> None:
    summary = summarize(0, NUM_IMAGES, 9)
    data = summary.to_bytes()
    back = Summary.from_bytes(data)
    assert_same(summary, back)
    assert back.to_bytes() == data


def test_histogram_tells_signs_and_zero_apart() -> None:
    running = RunningSummary(1, TOP_K, torch.device("cpu"))
    values = torch.tensor([[-1e9], [-1e-5], [0.0], [1e-5], [1e9]])
    no = torch.zeros(5, dtype=torch.bool)
    running.update(values, torch.arange(5), no, no)
    filled = np.flatnonzero(running.finish().histogram[SELECT, 0])
    assert filled.tolist() == [0, NUM_BINS // 2 - 1, NUM_BINS // 2, NUM_BINS - 1]
