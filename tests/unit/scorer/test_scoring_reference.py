"""Every scoring function against loops written down from the definitions of docs/method.md."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import numpy as np
import pytest

from dnd.errors import InvalidInput
from dnd.profiles import ScoreSettings, ScoringFunction
from dnd_services.scorer import probe, scoring
from dnd_services.scorer.scoring import Array, Evidence, rank_candidates

SEEDS = range(12)


class Case:
    """Random evidence with ties among the activations and synonyms among the concepts."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.num, self.images, dim = (int(n) for n in rng.integers((1, 1, 2), (7, 6, 5)))
        self.activations = rng.integers(-3, 4, (self.num, self.images)).astype(float)
        self.exemplars = rng.standard_normal((int(rng.integers(1, 5)), dim))
        self.drawings = rng.standard_normal((self.num, self.images, dim))
        self.texts = rng.standard_normal((self.num, dim))
        self.texts[-1] = self.texts[0]
        self.correlations = np.round(rng.uniform(-1, 1, self.num), 1)
        self.settings = ScoreSettings(
            beta=int(rng.integers(1, 7)),
            num_top_images=int(rng.integers(1, 8)),
            absent_product=float(rng.choice([-1.0, 0.0])),
            num_labels=int(rng.integers(1, 5)),
            max_label_cosine=0.5,
            num_digits=4,
        )

    @property
    def evidence(self) -> Evidence:
        return Evidence(
            self.activations, self.exemplars, self.drawings, self.texts, self.correlations
        )


def cosine(a: Any, b: Any) -> float:
    products = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return products / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


def slow_ranks(activations: Array) -> list[list[int]]:
    """An image's rank is the number of images that come before it."""
    flat = activations.ravel().tolist()
    ranks = [
        sum(other > value or (other == value and j < i) for j, other in enumerate(flat))
        for i, value in enumerate(flat)
    ]
    width = activations.shape[1]
    return [ranks[start : start + width] for start in range(0, len(ranks), width)]


def slow_products(case: Case, ranks: list[list[int]]) -> list[float]:
    values = []
    for j in range(case.num):
        cosines = [
            cosine(case.drawings[j, i], exemplar)
            for i in range(case.images)
            if ranks[j][i] < case.settings.num_top_images
            for exemplar in case.exemplars
        ]
        values.append(
            math.fsum(cosines) / len(cosines) if cosines else case.settings.absent_product
        )
    return values


def slow_auc(activations: Array, j: int) -> float | None:
    won = [
        1.0 if own > other else 0.5 if own == other else 0.0
        for own in activations[j]
        for k, row in enumerate(activations)
        if k != j
        for other in row
    ]
    return math.fsum(won) / len(won) if won else None


def slow_places(values: list[float]) -> list[float]:
    """Places are handed out one by one; those of equal values are then averaged."""
    ordered = sorted(values)
    return [
        math.fsum(place for place, other in enumerate(ordered) if other == value)
        / ordered.count(value)
        for value in values
    ]


def slow_components(case: Case) -> dict[str, list[Any]]:
    ranks = slow_ranks(case.activations)
    beta = case.settings.beta
    topk = [math.fsum(r * r for r in sorted(row)[:beta]) / len(row[:beta]) for row in ranks]
    products = slow_products(case, ranks)
    order = sorted(range(case.num), key=lambda j: (topk[j], j))
    places = zip(
        slow_places(topk),
        slow_places([-w for w in products]),
        slow_places([-c for c in case.correlations.tolist()]),
        strict=True,
    )
    return {
        "ranks": [sorted(row) for row in ranks],
        "mean_rank": [math.fsum(row) / len(row) for row in ranks],
        "squared_mean": [math.fsum(r * r for r in row) / len(row) for row in ranks],
        "topk_squared_mean": topk,
        "image_products": products,
        "topk_compare": [(case.num - order.index(j)) * products[j] for j in range(case.num)],
        "probe_correlation": case.correlations.tolist(),
        "auc": [slow_auc(case.activations, j) for j in range(case.num)],
        "mean_of_ranks": [math.fsum(three) / 3 for three in places],
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_every_component_equals_the_one_counted_by_hand(seed: int) -> None:
    case = Case(seed)
    expected = slow_components(case)
    scores = rank_candidates(case.evidence, case.settings).scores
    assert sorted(score.candidate for score in scores) == list(range(case.num))
    for score in scores:
        for name, values in expected.items():
            value = score.score if name == "mean_of_ranks" else getattr(score, name)
            wanted = values[score.candidate]
            if name == "ranks":
                assert list(value) == wanted
            elif wanted is None:
                assert value is None
            else:
                assert value == pytest.approx(wanted, abs=1e-9), name


@pytest.mark.parametrize("function", list(ScoringFunction))
@pytest.mark.parametrize("seed", SEEDS)
def test_order_is_that_of_the_chosen_component(seed: int, function: ScoringFunction) -> None:
    case = Case(seed)
    values = slow_components(case)[function.value]
    settings = ScoreSettings(**{**vars(case.settings), "function": function})
    scores = rank_candidates(case.evidence, settings).scores
    found = [values[score.candidate] for score in scores]
    higher_is_better = function in (
        ScoringFunction.IMAGE_PRODUCTS,
        ScoringFunction.TOPK_COMPARE,
        ScoringFunction.PROBE_CORRELATION,
    )
    assert found == pytest.approx(sorted(values, reverse=higher_is_better), abs=1e-9)
    assert [score.score for score in scores] == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_are_the_best_without_synonyms_of_better_ones(seed: int) -> None:
    case = Case(seed)
    ranking = rank_candidates(case.evidence, case.settings)
    order = [score.candidate for score in ranking.scores]
    kept: list[int] = []
    for place in range(min(case.settings.num_labels, case.num)):
        text = case.texts[order[place]]
        if not any(cosine(text, case.texts[order[other]]) > 0.5 for other in kept):
            kept.append(place)
    assert list(ranking.labels) == kept


@pytest.mark.parametrize("num_digits", [1, 4, 9])
def test_rounding_keeps_the_significant_digits_that_decimal_arithmetic_keeps(
    num_digits: int,
) -> None:
    rng = np.random.default_rng(5)
    values = rng.standard_normal(200) * 10.0 ** rng.integers(-12, 12, 200)
    rounded = scoring.round_digits(values, num_digits)
    for given, found in zip(values.tolist(), rounded.tolist(), strict=True):
        exact = Decimal(given)
        step = Decimal(1).scaleb(exact.adjusted() - num_digits + 1)
        assert found == float(exact.quantize(step, ROUND_HALF_EVEN))
    assert scoring.round_digits(np.zeros(2), num_digits).tolist() == [0.0, 0.0]


def test_scores_of_a_unit_do_not_change_when_its_images_are_scaled() -> None:
    """Activations count by their order alone."""
    case = Case(3)
    scaled = Evidence(
        case.activations * 8, case.exemplars, case.drawings, case.texts, case.correlations
    )
    assert rank_candidates(scaled, case.settings) == rank_candidates(case.evidence, case.settings)


def test_single_image_of_a_single_candidate_is_ranked() -> None:
    evidence = Evidence(np.ones((1, 1)), np.eye(1, 2), np.eye(1, 2)[None], np.eye(1, 2))
    (score,) = rank_candidates(evidence, ScoreSettings()).scores
    assert (score.ranks, score.topk_squared_mean, score.image_products) == ((0,), 0.0, 1.0)
    assert (score.auc, score.probe_correlation) == (None, None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["activations", "exemplars", "drawings", "texts", "correlations"])
def test_evidence_is_refused_when_a_value_is_not_finite(name: str, value: float) -> None:
    case = Case(1)
    getattr(case, name).flat[0] = value
    with pytest.raises(InvalidInput, match=f"{name} hold a value that is not a finite number"):
        _ = case.evidence


@pytest.mark.parametrize("name", ["exemplars", "texts", "drawings", "correlations"])
def test_evidence_is_refused_when_a_part_is_empty(name: str) -> None:
    case = Case(1)
    setattr(case, name, getattr(case, name)[:0])
    with pytest.raises(InvalidInput, match=rf"{name} have shape \(0,.*expected"):
        _ = case.evidence


# --- Probe correlation ----------------------------------------------------------------------------


@pytest.mark.parametrize("block", [3, 4096])
def test_correlation_equals_numpys_whatever_the_size_of_a_block(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(probe, "BLOCK_IMAGES", block)
    rng = np.random.default_rng(8)
    embeddings = rng.standard_normal((40, 5)).astype(np.float32)
    units = [(rng.standard_normal(40), rng.standard_normal((num, 5))) for num in (1, 4, 2)]
    found = probe.correlate(embeddings, [a for a, _ in units], [t for _, t in units])
    for (activations, texts), values in zip(units, found, strict=True):
        cosines = embeddings.astype(float) @ texts.T
        expected = [np.corrcoef(activations, column)[0, 1] for column in cosines.T]
        assert values == pytest.approx(expected, abs=1e-6)


def test_correlation_is_zero_when_one_side_is_constant() -> None:
    embeddings = np.tile(np.array([[0.6, 0.8]], np.float32), (30, 1))
    moving, still = np.arange(30.0), np.full(30, 0.1)
    texts = np.array([[1.0, 0.0]])
    assert probe.correlate(embeddings, [moving], [texts])[0].tolist() == [0.0]
    turning = np.stack([np.cos(moving), np.sin(moving)], 1).astype(np.float32)
    assert probe.correlate(turning, [still], [texts])[0].tolist() == [0.0]


def test_correlation_bits_do_not_depend_on_the_other_units() -> None:
    rng = np.random.default_rng(9)
    embeddings = rng.standard_normal((300, 16)).astype(np.float32)
    units = [(rng.standard_normal(300), rng.standard_normal((3, 16))) for _ in range(5)]
    together = probe.correlate(embeddings, [a for a, _ in units], [t for _, t in units])
    for (activations, texts), values in zip(units, together, strict=True):
        assert np.array_equal(probe.correlate(embeddings, [activations], [texts])[0], values)
