"""Candidates of many units ranked at once: gather, embed in few batches, score each unit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dnd.artifacts import ArtifactStore
from dnd.errors import DndError
from dnd.profiles import ScoreSettings
from dnd.types import OrError, Ranking, RequestContext
from dnd.v1 import types_pb2
from dnd_services.scorer.cache import Vector
from dnd_services.scorer.embedding import Embedder
from dnd_services.scorer.probe import ProbeEmbeddings, correlate_good
from dnd_services.scorer.scoring import Array, Evidence, rank_candidates


@dataclass(frozen=True)
class AskedCandidate:
    """A concept, its drawings, and the unit's activation on each of them."""

    text: str
    images: tuple[types_pb2.Image, ...]
    activations: tuple[float, ...]


@dataclass(frozen=True)
class AskedUnit:
    """A unit whose candidates, each with equally many drawings, are to be ranked."""

    exemplars: tuple[types_pb2.Image, ...]
    candidates: tuple[AskedCandidate, ...]
    probe_activations_ref: str


class Ranker:
    """Ranks candidates.

    Args:
        embedder: Embeds texts and pictures.
        probe: Embeddings of probe sets.
        store: Where the units' probe activations lie.
    """

    def __init__(self, embedder: Embedder, probe: ProbeEmbeddings, store: ArtifactStore) -> None:
        self._embedder = embedder
        self._probe = probe
        self._store = store

    async def rank(
        self,
        units: Sequence[OrError[AskedUnit]],
        settings: ScoreSettings,
        manifest_ref: str,
        *,
        context: RequestContext,
        timeout_s: float | None,
    ) -> list[OrError[Ranking]]:
        """The ranking of each unit, or why there is none, in order.

        Raises:
            Overloaded, RequestTooLarge, Unavailable: Nothing could be embedded.
            NotFound, InvalidInput: The manifest, which all units share, cannot be used.
        """
        gathered = await self._gather(units, settings, context, timeout_s)
        if settings.probe_correlation:
            embeddings = await self._probe.get(manifest_ref, timeout_s)
            good = [
                (unit, evidence)
                for unit, evidence in zip(units, gathered, strict=True)
                if isinstance(unit, AskedUnit) and isinstance(evidence, Evidence)
            ]
            correlations = iter(
                await asyncio.to_thread(
                    correlate_good,
                    self._store,
                    embeddings,
                    [unit.probe_activations_ref for unit, _ in good],
                    [evidence.texts for _, evidence in good],
                )
            )
            gathered = [
                _with_correlations(one, next(correlations)) if isinstance(one, Evidence) else one
                for one in gathered
            ]
        return await asyncio.to_thread(_rank_each, gathered, settings)

    async def _gather(
        self,
        units: Sequence[OrError[AskedUnit]],
        settings: ScoreSettings,
        context: RequestContext,
        timeout_s: float | None,
    ) -> list[OrError[Evidence]]:
        """Everything but the correlations, embedded together for all units."""
        good = [unit for unit in units if isinstance(unit, AskedUnit)]
        embedded = await asyncio.gather(
            self._embedder.embed_texts(
                [one.text for unit in good for one in unit.candidates],
                context=context,
                timeout_s=timeout_s,
            ),
            self._embedder.embed_images(
                [image for unit in good for image in unit.exemplars],
                0,
                context=context,
                timeout_s=timeout_s,
            ),
            self._embedder.embed_images(
                [image for unit in good for one in unit.candidates for image in one.images],
                settings.show_at,
                context=context,
                timeout_s=timeout_s,
            ),
        )
        texts, exemplars, drawings = map(iter, embedded)
        gathered: list[OrError[Evidence]] = []
        for unit in units:
            if isinstance(unit, DndError):
                gathered.append(unit)
                continue
            num, num_images = len(unit.candidates), len(unit.candidates[0].images)
            rows = (
                [next(exemplars) for _ in unit.exemplars],
                [next(drawings) for _ in range(num * num_images)],
                [next(texts) for _ in range(num)],
            )
            gathered.append(_assemble(unit, *rows))
        return gathered


def _assemble(
    unit: AskedUnit,
    exemplars: list[OrError[Vector]],
    drawings: list[OrError[Vector]],
    texts: list[OrError[Vector]],
) -> OrError[Evidence]:
    """One unit's evidence, or the first error of something that it consists of."""
    for vector in (*exemplars, *drawings, *texts):
        if isinstance(vector, DndError):
            return vector
    activations = np.array([one.activations for one in unit.candidates], dtype=np.float64)
    pictures = np.array(drawings, dtype=np.float64)
    try:
        return Evidence(
            activations=activations,
            exemplars=np.array(exemplars, dtype=np.float64),
            drawings=pictures.reshape(*activations.shape, pictures.shape[-1]),
            texts=np.array(texts, dtype=np.float64),
        )
    except DndError as error:
        return error


def _with_correlations(evidence: Evidence, values: OrError[Array]) -> OrError[Evidence]:
    if isinstance(values, DndError):
        return values
    return Evidence(
        evidence.activations, evidence.exemplars, evidence.drawings, evidence.texts, values
    )


def _rank_each(
    gathered: Sequence[OrError[Evidence]], settings: ScoreSettings
) -> list[OrError[Ranking]]:
    results: list[OrError[Ranking]] = []
    for evidence in gathered:
        try:
            results.append(
                evidence if isinstance(evidence, DndError) else rank_candidates(evidence, settings)
            )
        except DndError as error:
            results.append(error)
    return results
