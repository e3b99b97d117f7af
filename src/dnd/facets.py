"""The kinds of images that a unit responds to: its top images, clustered by their embeddings.

The criterion is that of `dnd.clusters`. `dnd.stages.select_exemplars` gives each kind exemplars of
its own, and each goes through the rest of the method by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dnd.chunks import chunks
from dnd.clients import Services
from dnd.clusters import choose_images, find_clusters
from dnd.errors import DndError, passing_error
from dnd.profiles import FacetSettings
from dnd.types import OrError, TopImages, UnitExemplars

# What one call carries, so that it ends well within its deadline.
EMBEDDINGS_PER_CALL = 128
TOP_IMAGES_PER_CALL = 64


@dataclass(frozen=True)
class Facet:
    """One of several kinds of images that a unit responds to.

    Attributes:
        sources: References of the images, highest activation first.
        share: Of the kind in what excites the unit, 0..1.
    """

    sources: tuple[str, ...]
    share: float


def find_facets(
    services: Services,
    settings: FacetSettings,
    index_ref: str,
    units: Sequence[int],
    scorer_digest: str,
) -> list[tuple[Facet, ...]]:
    """The kinds of images that each unit responds to, weightiest first; none if it is one kind.

    All images that the index kept of a unit and that excite it at least `min_activation` as much
    as its strongest ones are clustered by the scorer's embeddings (`dnd.clusters`).
    """
    chosen: list[dict[str, float]] = []
    for some in chunks(units, TOP_IMAGES_PER_CALL):
        for top in services.activations.list_top_images(index_ref, some):
            chosen.append(_weigh_images(top, settings.min_activation))
    images = list(dict.fromkeys(image for weights in chosen for image in weights))
    vectors: dict[str, tuple[float, ...]] = {}
    for some_images in chunks(images, EMBEDDINGS_PER_CALL):
        answers = services.scorer.embed_images(some_images, model_digest=scorer_digest)
        if passing := passing_error(answers):
            raise passing
        for image, answer in zip(some_images, answers, strict=True):
            if not isinstance(answer, DndError):
                vectors[image] = answer
    found: list[tuple[Facet, ...]] = []
    for weights in chosen:
        sources = [image for image in weights if image in vectors]
        if len(sources) < 2 * settings.min_images:
            found.append(())
            continue
        clustering = find_clusters(
            np.array([vectors[image] for image in sources]),
            np.array([weights[image] for image in sources]),
            max_clusters=settings.max_clusters,
            min_silhouette=settings.min_silhouette,
            min_share=settings.min_share,
            min_images=settings.min_images,
        )
        facets = tuple(
            Facet(tuple(sources[place] for place in members), round(share, 4))
            for members, share in zip(clustering.members, clustering.shares, strict=True)
        )
        found.append(facets if len(facets) > 1 else ())
    return found


def _weigh_images(top: TopImages, min_activation: float) -> dict[str, float]:
    """The images of a unit that count, highest activation first, and how much."""
    weights = choose_images(top.activations, top.median, min_activation)
    return {
        image: float(weight)
        for image, weight in zip(top.sources, weights, strict=True)
        if weight > 0
    }


def join_facets(
    whole: UnitExemplars, facets: Sequence[tuple[Facet, OrError[UnitExemplars]]]
) -> OrError[UnitExemplars]:
    """The exemplars of all kinds as one value; deciles are of the unit and stay with the first."""
    parts: list[UnitExemplars] = []
    for facet, answer in facets:
        if isinstance(answer, DndError):
            return answer
        deciles = () if parts else whole.deciles
        parts.append(replace(answer, share=facet.share, deciles=deciles))
    return replace(parts[0], facets=tuple(parts[1:])) if parts else whole
