"""Search in the labels of a tenant's jobs, by words and by meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from dnd.chunks import chunks
from dnd.clients import Services
from dnd.errors import DndError, ModelMissing
from dnd.evaluation.sentences import MODEL, load_sentence_encoder
from dnd.types import OrError
from dnd_services.coordinator.models import JobRow
from dnd_services.coordinator.store import Store, jobs
from dnd_services.coordinator.store.reading import UnitView, view_unit
from dnd_services.coordinator.store.search import (
    has_text,
    labelled_units,
    read_vectors,
    write_vectors,
)

MAX_UNITS = 200_000
"""Units whose labels are compared with what is meant, at most: those of the newest jobs."""
MAX_SENTENCES = 5_000
"""Different labels that the sentence encoder embeds, at most."""
_TEXTS_PER_CALL = 256
Scope: TypeAlias = tuple[str, str]
"""Tenant and job id; an empty id for all jobs of the tenant."""


@dataclass(frozen=True)
class Encoder:
    """What embeds texts.

    Attributes:
        model: What names it; its embeddings are kept under that.
        embed: L2-normalised (dim,) or an error for each text.
    """

    model: str
    embed: Callable[[Sequence[str]], Sequence[OrError[ArrayLike]]]


@dataclass(frozen=True)
class Hit:
    """A unit, and that of its labels which was found."""

    job: JobRow
    view: UnitView
    label: str
    score: float = 0.0


def find_by_words(
    store: Store, services: Services, scope: Scope, text: str, start: int, limit: int
) -> list[Hit]:
    """Units whose labels have every word of `text`, newest jobs first.

    Raises:
        NotFound: The tenant has no such job.
    """
    words = text.split()
    rows = _rows(store, scope, [has_text(word) for word in words], start, limit)
    return [
        Hit(job, view, _label_with(view.row.labels if view.row else [], words))
        for job, view in rows
    ]


def find_by_meaning(
    store: Store, services: Services, scope: Scope, text: str, start: int, limit: int
) -> list[Hit]:
    """Units by the cosine of their nearest label to `text`.

    Labels are embedded once, when they are first searched, and kept.

    Raises:
        NotFound: The tenant has no such job.
        Transient: The scorer does not answer.
    """
    rows = _rows(store, scope, [], 0, MAX_UNITS)
    pairs = [
        (place, label)
        for place, (_, view) in enumerate(rows)
        for label in (view.row.labels if view.row else [])
    ]
    if not pairs:
        return []
    labels = sorted({label for _, label in pairs})
    encoder = find_encoder(services, len(labels))
    vectors = _embed(store, encoder, labels)
    (wanted,) = encoder.embed([text])
    if isinstance(wanted, DndError):
        raise wanted
    matrix = np.stack([vectors[label] for _, label in pairs]).astype(np.float32)
    cosines = matrix @ np.asarray(wanted, np.float32)
    best: dict[int, tuple[float, str]] = {}
    for (place, label), cosine in zip(pairs, cosines.tolist(), strict=True):
        if place not in best or cosine > best[place][0]:
            best[place] = (cosine, label)
    order = sorted(best, key=lambda place: (-best[place][0], place))[start : start + limit]
    return [Hit(*rows[place], label=best[place][1], score=best[place][0]) for place in order]


def find_encoder(services: Services, num_labels: int) -> Encoder:
    """The sentence encoder where it is installed, else the text encoder of the scorer's CLIP.

    Sentences are embedded on the processor here: so many labels that this takes too long are left
    to the scorer, which has a device.

    Raises:
        Transient: The scorer does not answer.
    """
    if num_labels <= MAX_SENTENCES:
        with suppress(ModelMissing):
            sentences = load_sentence_encoder()
            return Encoder(MODEL, lambda texts: list(sentences.embed(texts)))
    model = services.scorer.get_model().digest
    return Encoder(model, lambda texts: services.scorer.embed_texts(texts, model))


def _rows(
    store: Store, scope: Scope, where: list[object], start: int, limit: int
) -> list[tuple[JobRow, UnitView]]:
    tenant, job_id = scope
    with store.reading() as session:
        if job_id:
            jobs.find_job(session, tenant, job_id)
        found = labelled_units(session, tenant, job_id, where, start, limit)  # type: ignore[arg-type]
    return [
        (job, view_unit(job, layer, unit.unit, unit.ordinal, unit)) for job, layer, unit in found
    ]


def _embed(store: Store, encoder: Encoder, labels: list[str]) -> dict[str, np.ndarray]:
    """Embeddings of labels, from the record or made now."""
    with store.reading() as session:
        found = read_vectors(session, encoder.model, labels)
    for some in chunks([label for label in labels if label not in found], _TEXTS_PER_CALL):
        made: dict[str, np.ndarray] = {}
        for label, vector in zip(some, encoder.embed(some), strict=True):
            if isinstance(vector, DndError):
                raise vector
            made[label] = np.asarray(vector, np.float16)
        with store.writing() as session:
            write_vectors(session, encoder.model, made)
        found |= made
    return found


def _label_with(labels: list[str], words: list[str]) -> str:
    """The label with most of the words."""
    folded = [word.casefold() for word in words]
    return max(labels, key=lambda label: sum(word in label.casefold() for word in folded))
