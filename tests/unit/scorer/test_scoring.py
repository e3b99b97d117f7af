"""Scoring functions: the published numbers, and small cases worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnd.errors import InvalidInput
from dnd.profiles import ScoreSettings, ScoringFunction
from dnd_services.scorer import scoring
from dnd_services.scorer.scoring import Array, Evidence, rank_candidates

GOLDEN = Path(__file__).parents[2] / "golden" / "concept_scoring.json"
CASES: list[dict[str, Any]] = json.loads(GOLDEN.read_text())
PAPER = ScoreSettings(
    function=ScoringFunction.TOPK_COMPARE, absent_product=-1.0, num_digits=9, max_label_cosine=1.0
)
DEFAULT = ScoreSettings()

PUBLISHED = {
    ScoringFunction.MEAN_RANK: "mean_rank",
    ScoringFunction.SQUARED_MEAN: "squared_mean",
    ScoringFunction.TOPK_SQUARED_MEAN: "topk_squared_mean",
    ScoringFunction.IMAGE_PRODUCTS: "image_products",
}


def evidence_of(case: dict[str, Any]) -> Evidence:
    activations = np.array(case["activations"])
    drawings = np.array(case["synthetic_embeddings"])
    return Evidence(
        activations=activations,
        exemplars=np.array(case["exemplar_embeddings"]),
        drawings=drawings,
        texts=np.zeros((len(activations), drawings.shape[-1])),
    )


def make_evidence(activations: Any, **changes: Any) -> Evidence:
    """Evidence whose pictures all point the same way, so that W is 1 where it is not absent."""
    values = np.array(activations, dtype=float)
    parts: dict[str, Any] = {
        "activations": values,
        "exemplars": np.array([[1.0, 0.0]]),
        "drawings": np.tile([1.0, 0.0], (*values.shape, 1)),
        "texts": np.eye(len(values), max(2, len(values)))[:, :2]
        if len(values) <= 2
        else np.tile([1.0, 0.0], (len(values), 1)),
    }
    return Evidence(**(parts | changes))


# --- Golden vectors -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(CASES)))
def test_scores_and_orders_equal_the_published_ones(number: int) -> None:
    case = CASES[number]
    evidence, expected = evidence_of(case), case["expected"]
    ranking = rank_candidates(evidence, PAPER)
    by_candidate = {score.candidate: score for score in ranking.scores}

    assert {str(j): list(s.ranks) for j, s in by_candidate.items()} == expected["ranks"]
    for name in PUBLISHED.values():
        for j, value in expected[name].items():
            assert getattr(by_candidate[int(j)], name) == pytest.approx(value, abs=1e-5)
    assert [s.candidate for s in ranking.scores] == [j for j, _ in expected["topk_compare"]]
    for score, (_, value) in zip(ranking.scores, expected["topk_compare"], strict=True):
        assert score.score == score.topk_compare == pytest.approx(value, abs=1e-5)

    for function, name in PUBLISHED.items():
        other = rank_candidates(evidence, replace(PAPER, function=function))
        assert [str(s.candidate) for s in other.scores] == list(expected[name]), function
        assert [s.score for s in other.scores] == [getattr(s, name) for s in other.scores]


# --- Ranks ----------------------------------------------------------------------------------------


def test_ranks_count_from_zero_over_all_candidates_highest_activation_first() -> None:
    ranks = scoring.rank_images(np.array([[5.0, 1.0], [3.0, 4.0]]))
    assert ranks.tolist() == [[0, 3], [2, 1]]


def test_lower_image_index_comes_first_when_activations_are_equal() -> None:
    ranks = scoring.rank_images(np.array([[2.0, 7.0], [7.0, 2.0], [2.0, 7.0]]))
    assert ranks.tolist() == [[3, 0], [1, 4], [5, 2]]


def test_near_ties_count_as_ties_when_they_agree_in_the_rounded_digits() -> None:
    activations = np.array([[0.123449, -98765.0], [0.12341, 0.0]])
    rounded = scoring.round_digits(activations, 4)
    assert rounded.tolist() == [[0.1234, -98760.0], [0.1234, 0.0]]
    assert scoring.rank_images(rounded).tolist() == [[0, 3], [1, 2]]
    assert scoring.rank_images(scoring.round_digits(activations, 6)).tolist() == [[0, 3], [1, 2]]
    swapped = scoring.round_digits(activations[::-1], 6)
    assert scoring.rank_images(swapped).tolist() == [[1, 2], [0, 3]]


def test_mean_squared_and_topk_means_when_worked_out_by_hand() -> None:
    ranks = np.array([[0, 4, 5], [3, 1, 2]])
    assert scoring.mean_rank(ranks).tolist() == [3.0, 2.0]
    assert scoring.squared_mean(ranks) == pytest.approx([41 / 3, 14 / 3])
    assert scoring.topk_squared_mean(ranks, 2).tolist() == [8.0, 2.5]
    assert scoring.topk_squared_mean(ranks, 9) == pytest.approx([41 / 3, 14 / 3])


# --- Image products and their combination ---------------------------------------------------------


def test_image_products_count_only_the_most_activating_drawings_of_all() -> None:
    exemplars = np.array([[1.0, 0.0], [0.0, 2.0]])  # lengths do not matter: cosines
    drawings = np.array([[[3.0, 0.0], [-1.0, 0.0]], [[0.0, -1.0], [1.0, 1.0]]])
    ranks = np.array([[0, 3], [2, 1]])
    args = {"exemplars": exemplars, "drawings": drawings, "ranks": ranks, "absent": -1.0}
    assert scoring.image_products(**args, num_top_images=1) == pytest.approx([0.5, -1.0])
    assert scoring.image_products(**args, num_top_images=2) == pytest.approx([0.5, 2**-0.5])
    both = (2**-0.5 - 0.5) / 2
    assert scoring.image_products(**args, num_top_images=4) == pytest.approx([0.0, both])


def test_absent_value_is_the_settings_when_a_candidate_has_no_drawing_at_the_top() -> None:
    evidence = make_evidence([[9, 8], [1, 2]])
    for absent in (-1.0, 0.0):
        settings = replace(PAPER, num_top_images=2, absent_product=absent)
        scores = {s.candidate: s for s in rank_candidates(evidence, settings).scores}
        assert scores[0].image_products == 1.0
        assert scores[1].image_products == absent
        assert (scores[0].topk_compare, scores[1].topk_compare) == (2.0, absent)


def test_topk_compare_multiplies_place_and_products() -> None:
    values = scoring.topk_compare(np.array([4.0, 1.0, 9.0]), np.array([0.5, 0.25, 0.8]))
    assert values.tolist() == [1.0, 0.75, 0.8]


def test_better_place_is_worse_when_the_product_is_negative() -> None:
    """The quirk of `paper`."""
    values = scoring.topk_compare(np.array([1.0, 4.0]), np.array([-1.0, -1.0]))
    assert values.tolist() == [-2.0, -1.0]
    assert scoring.order_candidates(ScoringFunction.TOPK_COMPARE, values) == [1, 0]


def test_lower_index_has_the_better_place_when_topk_squared_means_are_equal() -> None:
    values = scoring.topk_compare(np.array([4.0, 4.0, 1.0]), np.ones(3))
    assert values.tolist() == [2.0, 1.0, 3.0]


@pytest.mark.parametrize("function", list(ScoringFunction))
def test_order_of_equal_values_is_the_documented_one(function: ScoringFunction) -> None:
    higher_first = function in (ScoringFunction.TOPK_COMPARE, ScoringFunction.IMAGE_PRODUCTS)
    order = scoring.order_candidates(function, np.array([0.5, 0.5, 0.5]))
    assert order == ([2, 1, 0] if higher_first else [0, 1, 2])


# --- Mean of ranks --------------------------------------------------------------------------------


def test_mean_of_ranks_is_the_mean_place_over_the_components() -> None:
    topk, products = np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.9, 0.5])
    assert scoring.mean_of_ranks(topk, products, None).tolist() == [1.0, 0.5, 1.5]
    correlations = np.array([0.0, -0.2, 0.7])
    with_probe = scoring.mean_of_ranks(topk, products, correlations)
    assert with_probe == pytest.approx([(0 + 2 + 1) / 3, (1 + 0 + 2) / 3, (2 + 1 + 0) / 3])


def test_places_are_shared_when_a_component_is_equal() -> None:
    assert scoring.shared_places(np.array([0.0, -1.0, 0.0, 0.0])).tolist() == [2.0, 0.0, 2.0, 2.0]
    values = scoring.mean_of_ranks(np.array([5.0, 4.0, 1.0]), np.array([0.0, 0.0, 0.4]), None)
    assert values.tolist() == [1.75, 1.25, 0.0]


def test_lower_pool_index_wins_when_means_of_ranks_are_equal() -> None:
    values = scoring.mean_of_ranks(np.array([1.0, 2.0]), np.array([0.1, 0.2]), None)
    assert values.tolist() == [0.5, 0.5]
    assert scoring.order_candidates(ScoringFunction.MEAN_OF_RANKS, values) == [0, 1]


# --- Probe correlation ----------------------------------------------------------------------------


def test_probe_correlation_orders_candidates_highest_first() -> None:
    settings = replace(DEFAULT, function=ScoringFunction.PROBE_CORRELATION)
    evidence = make_evidence([[1, 2], [3, 4]], correlations=np.array([0.4, -0.3]))
    ranking = rank_candidates(evidence, settings)
    assert [(s.candidate, s.score, s.probe_correlation) for s in ranking.scores] == [
        (0, 0.4, 0.4),
        (1, -0.3, -0.3),
    ]


def test_ranking_is_refused_when_its_function_needs_a_correlation_that_is_not_there() -> None:
    settings = replace(DEFAULT, function=ScoringFunction.PROBE_CORRELATION)
    with pytest.raises(InvalidInput, match="probe_activations_ref"):
        rank_candidates(make_evidence([[1, 2], [3, 4]]), settings)


# --- AUC ------------------------------------------------------------------------------------------


def test_auc_is_the_share_of_pairs_in_which_the_own_drawing_is_higher() -> None:
    aucs = scoring.drawing_aucs(np.array([[5.0, 2.0], [4.0, 1.0], [3.0, 3.0]]))
    assert aucs is not None
    # own 5 beats all four others; 2 beats 1 of 4.  4: 3 of 4, 1: none.  3 (twice): 2 of 4.
    assert aucs.tolist() == [5 / 8, 3 / 8, 4 / 8]


def test_ties_count_half_in_auc() -> None:
    aucs = scoring.drawing_aucs(np.array([[1.0, 2.0], [1.0, 2.0]]))
    assert aucs is not None
    assert aucs.tolist() == [0.5, 0.5]


def test_auc_is_absent_when_there_is_one_candidate() -> None:
    assert scoring.drawing_aucs(np.array([[1.0, 2.0]])) is None
    (score,) = rank_candidates(make_evidence([[1.0, 2.0]]), DEFAULT).scores
    assert score.auc is None
    assert score.score == 0.0


# --- Labels ---------------------------------------------------------------------------------------


def unit(degrees: float) -> list[float]:
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


def test_later_label_is_dropped_when_it_is_close_to_a_kept_one() -> None:
    texts = np.array([unit(0), unit(20), unit(40), unit(90)])  # cos 20° = .94, cos 40° = .77
    assert scoring.select_labels(texts, 3, 0.81) == (0, 2)
    assert scoring.select_labels(texts, 4, 0.81) == (0, 2, 3)
    assert scoring.select_labels(texts, 3, 0.95) == (0, 1, 2)
    assert scoring.select_labels(texts, 1, -1.0) == (0,)


def test_labels_are_places_in_the_ranking_when_the_order_is_not_that_of_the_pool() -> None:
    texts = np.array([unit(0), unit(90), unit(5)])
    evidence = make_evidence([[1, 2], [5, 6], [3, 4]], texts=texts)
    ranking = rank_candidates(evidence, replace(PAPER, max_label_cosine=0.81))
    assert [s.candidate for s in ranking.scores] == [1, 2, 0]
    assert ranking.labels == (0, 1)  # candidate 0 is a synonym of candidate 2


# --- Bad input ------------------------------------------------------------------------------------


def test_evidence_is_refused_when_shapes_or_values_do_not_fit() -> None:
    good = make_evidence([[1, 2], [3, 4]])
    bad: dict[str, Array] = {
        "activations": np.array([[1.0, np.nan], [3.0, 4.0]]),
        "drawings": good.drawings[:, :1],
        "texts": good.texts[:1],
        "exemplars": np.ones((1, 3)),
    }
    for name, value in bad.items():
        with pytest.raises(InvalidInput):
            replace(good, **{name: value})
    with pytest.raises(InvalidInput, match="at least 1 x 1"):
        replace(good, activations=np.zeros((0, 2)))


def test_scores_do_not_change_when_the_same_evidence_comes_as_float32() -> None:
    evidence = evidence_of(CASES[4])
    narrow = Evidence(
        *(
            getattr(evidence, name).astype(np.float32)
            for name in ("activations", "exemplars", "drawings", "texts")
        )
    )
    wide, small = rank_candidates(evidence, PAPER), rank_candidates(narrow, PAPER)
    assert [s.candidate for s in wide.scores] == [s.candidate for s in small.scores]
    for a, b in zip(wide.scores, small.scores, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-5)
