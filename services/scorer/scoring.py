"""How candidates are ranked by their drawings (DnD section 3.3; docs/method.md).

Numbers in, numbers out: plain numpy in float64, one unit at a time, so that a unit's scores never
depend on the other units of a request.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd.auc import auc_of
from dnd.errors import InvalidInput
from dnd.profiles import ScoreSettings, ScoringFunction
from dnd.rounding import round_digits
from dnd.types import ConceptScore, Ranking

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Evidence:
    """What one unit's candidates are ranked from.

    Attributes:
        activations: The unit's activation on each drawing, `(candidates, images)`.
        exemplars: L2-normalised embeddings of the unit's exemplars, `(exemplars, dim)`.
        drawings: L2-normalised embeddings of the drawings, `(candidates, images, dim)`.
        texts: L2-normalised embeddings of the concepts, `(candidates, dim)`.
        correlations: Probe correlation of each candidate, `(candidates,)`; None if not asked for.
    """

    activations: Array
    exemplars: Array
    drawings: Array
    texts: Array
    correlations: Array | None = None

    def __post_init__(self) -> None:
        if self.activations.ndim != 2 or 0 in self.activations.shape:
            raise InvalidInput(
                f"Activations have shape {self.activations.shape}: expected (candidates, images), "
                "at least 1 x 1."
            )
        num, images = self.activations.shape
        dim = self.texts.shape[-1]
        expected = {
            "activations": (num, images),
            "drawings": (num, images, dim),
            "texts": (num, dim),
            "exemplars": (max(1, len(self.exemplars)), dim),
        }
        if self.correlations is not None:
            expected["correlations"] = (num,)
        for name, shape in expected.items():
            values = getattr(self, name)
            if values.shape != shape:
                raise InvalidInput(f"{name} have shape {values.shape}: expected {shape}.")
            if not np.isfinite(values).all():
                raise InvalidInput(f"{name} hold a value that is not a finite number.")


def rank_candidates(evidence: Evidence, settings: ScoreSettings) -> Ranking:
    """All candidates of one unit, best first, with every component score, and the labels.

    Raises:
        InvalidInput: The scoring function needs the probe correlation, and there is none.
    """
    activations = round_digits(evidence.activations, settings.num_digits)
    ranks = rank_images(activations)
    topk = topk_squared_mean(ranks, settings.beta)
    products = image_products(
        evidence.exemplars,
        evidence.drawings,
        ranks,
        num_top_images=settings.num_top_images,
        absent=settings.absent_product,
    )
    components = {
        ScoringFunction.MEAN_RANK: mean_rank(ranks),
        ScoringFunction.SQUARED_MEAN: squared_mean(ranks),
        ScoringFunction.TOPK_SQUARED_MEAN: topk,
        ScoringFunction.IMAGE_PRODUCTS: products,
        ScoringFunction.TOPK_COMPARE: topk_compare(topk, products),
        ScoringFunction.MEAN_OF_RANKS: mean_of_ranks(topk, products, evidence.correlations),
    }
    if evidence.correlations is not None:
        components[ScoringFunction.PROBE_CORRELATION] = evidence.correlations
    if settings.function not in components:
        raise InvalidInput(
            "The scoring function is probe correlation, and the unit has no probe activations: "
            "set probe_correlation and name probe_activations_ref, or choose another function."
        )
    aucs = drawing_aucs(activations)
    order = order_candidates(settings.function, components[settings.function])
    scores = tuple(
        ConceptScore(
            candidate=int(j),
            score=float(components[settings.function][j]),
            ranks=tuple(int(rank) for rank in np.sort(ranks[j])),
            mean_rank=float(components[ScoringFunction.MEAN_RANK][j]),
            squared_mean=float(components[ScoringFunction.SQUARED_MEAN][j]),
            topk_squared_mean=float(topk[j]),
            image_products=float(products[j]),
            topk_compare=float(components[ScoringFunction.TOPK_COMPARE][j]),
            probe_correlation=(
                None if evidence.correlations is None else float(evidence.correlations[j])
            ),
            auc=None if aucs is None else float(aucs[j]),
        )
        for j in order
    )
    labels = select_labels(evidence.texts[order], settings.num_labels, settings.max_label_cosine)
    return Ranking(scores, labels)


# --- Ranks of the drawings ------------------------------------------------------------------------


def rank_images(activations: Array) -> Ints:
    """R: 0-based ranks of all drawings, highest activation first, `(candidates, images)`.

    Equal activations: the lower image index first, images counted candidate by candidate.
    """
    order = np.argsort(-activations.ravel(), kind="stable")
    ranks = np.empty(order.size, dtype=np.int64)
    ranks[order] = np.arange(order.size)
    return ranks.reshape(activations.shape)


def mean_rank(ranks: Ints) -> Array:
    """Mean of the ranks of each candidate; lower is better."""
    return np.asarray(np.mean(ranks, axis=1, dtype=np.float64))


def squared_mean(ranks: Ints) -> Array:
    """Mean of the squared ranks of each candidate; lower is better."""
    return np.asarray(np.mean(np.square(ranks), axis=1, dtype=np.float64))


def topk_squared_mean(ranks: Ints, beta: int) -> Array:
    """Mean of the squares of the `beta` smallest ranks of each candidate; lower is better."""
    return squared_mean(np.sort(ranks, axis=1)[:, :beta])


# --- Pictures against pictures --------------------------------------------------------------------


def image_products(
    exemplars: Array, drawings: Array, ranks: Ints, *, num_top_images: int, absent: float
) -> Array:
    """W: how much the drawings that excite the unit look like its exemplars; higher is better.

    Args:
        exemplars: `(exemplars, dim)`, drawings: `(candidates, images, dim)`; cosines are taken.
        ranks: `(candidates, images)` over all drawings.
        num_top_images: Only drawings among this many most activating ones of ALL count.
        absent: The value of a candidate with none among those.

    Returns:
        Mean cosine between every exemplar and every counted drawing, `(candidates,)`.
    """
    unit_exemplars = _normalise(exemplars)
    values = np.full(len(drawings), absent, dtype=np.float64)
    for j, (images, places) in enumerate(zip(drawings, ranks, strict=True)):
        counted = images[places < num_top_images]
        if len(counted):
            values[j] = np.mean(_normalise(counted) @ unit_exemplars.T)
    return values


def topk_compare(topk: Array, products: Array) -> Array:
    """K * W (the paper's combination); higher is better.

    K is the number of candidates minus the place by TopK squared mean, so the best has K = number
    of candidates. A negative W is multiplied as it is: a better K then makes it worse.
    """
    places = np.empty(len(topk), dtype=np.int64)
    places[order_candidates(ScoringFunction.TOPK_SQUARED_MEAN, topk)] = np.arange(len(topk))
    return np.asarray((len(topk) - places) * products)


def mean_of_ranks(topk: Array, products: Array, correlations: Array | None) -> Array:
    """Mean place of each candidate among the candidates by each component; lower is better.

    Candidates that are equal in a component share the mean of their places in it, so that those
    without a single drawing among the best (all with the same W) are told apart by the others only.
    """
    places = [shared_places(topk), shared_places(-products)]
    if correlations is not None:
        places.append(shared_places(-correlations))
    return np.asarray(np.mean(places, axis=0, dtype=np.float64))


def shared_places(values: Array) -> Array:
    """0-based places, lowest value first; equal values share the mean of their places."""
    below = (values[None, :] < values[:, None]).sum(axis=1)
    equal = (values[None, :] == values[:, None]).sum(axis=1)
    return np.asarray(below + (equal - 1) / 2)


# --- Order and labels -----------------------------------------------------------------------------

_LOWER_IS_BETTER = frozenset(
    {
        ScoringFunction.MEAN_RANK,
        ScoringFunction.SQUARED_MEAN,
        ScoringFunction.TOPK_SQUARED_MEAN,
        ScoringFunction.MEAN_OF_RANKS,
    }
)
_HIGHER_INDEX_FIRST = frozenset({ScoringFunction.IMAGE_PRODUCTS, ScoringFunction.TOPK_COMPARE})


def order_candidates(function: ScoringFunction, values: Array) -> list[int]:
    """Indices of the candidates, best first.

    Equal values: the lower index first, but for image products and TopK compare the higher one, as
    in the published numbers.
    """
    sign = 1.0 if function in _LOWER_IS_BETTER else -1.0
    tie = -1 if function in _HIGHER_INDEX_FIRST else 1
    return sorted(range(len(values)), key=lambda j: (sign * values[j], tie * j))


def select_labels(texts: Array, num_labels: int, max_cosine: float) -> tuple[int, ...]:
    """Places of the labels among the `num_labels` best, best first.

    Args:
        texts: Embeddings of the concepts, best first, `(candidates, dim)`.
        max_cosine: A later label closer to a kept one than this is a near-synonym and left out.
    """
    best = _normalise(texts[:num_labels])
    kept: list[int] = []
    for place in range(len(best)):
        if all(float(best[place] @ best[other]) <= max_cosine for other in kept):
            kept.append(place)
    return tuple(kept)


def drawing_aucs(activations: Array) -> Array | None:
    """For each candidate the share of (own, other candidates') pairs in which the own is higher.

    Ties count half; 0.5 is chance. None with a single candidate.
    """
    if len(activations) < 2:
        return None
    return np.array(
        [
            auc_of(own, np.sort(np.delete(activations, j, axis=0).ravel()))
            for j, own in enumerate(activations)
        ]
    )


def _normalise(rows: Array) -> Array:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(np.divide(rows, np.where(norms > 0, norms, 1.0), dtype=np.float64))
