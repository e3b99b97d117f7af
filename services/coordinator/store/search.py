"""Conditions on units by their labels and percentiles, and the embeddings of labels."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from sqlalchemy import ColumnElement, Text, cast, delete, func, select, tuple_
from sqlalchemy.orm import Session

from dnd.chunks import chunks
from dnd_services.coordinator.models import JobLayerRow, JobRow, LabelVectorRow, UnitRow
from dnd_services.coordinator.store.bulk import insert_rows

_ROWS_PER_STATEMENT = 500


def has_text(text: str) -> ColumnElement[bool]:
    """A label contains `text`, whatever the case; labels are stored as JSON, with its escapes."""
    labels = cast(UnitRow.labels, Text)
    inner = func.substr(labels, 2, func.length(labels) - 2)
    return inner.icontains(json.dumps(text)[1:-1], autoescape=True)


def in_percentiles(low: float | None, high: float | None) -> tuple[ColumnElement[bool], ...]:
    """A percentile of at least `low` and at most `high`; None for no such limit."""
    limits = []
    if low is not None:
        limits.append(UnitRow.percentile >= low)
    if high is not None:
        limits.append(UnitRow.percentile <= high)
    return tuple(limits)


def labelled_units(
    session: Session,
    tenant: str,
    job_id: str,
    where: Sequence[ColumnElement[bool]],
    start: int,
    limit: int,
) -> list[tuple[JobRow, JobLayerRow, UnitRow]]:
    """Units with a label that fulfil `where`, of one job or all of a tenant, newest jobs first."""
    statement = (
        select(JobRow, JobLayerRow, UnitRow)
        .join(UnitRow, UnitRow.job_id == JobRow.id)
        .join(
            JobLayerRow,
            (JobLayerRow.job_id == UnitRow.job_id) & (JobLayerRow.place == UnitRow.place),
        )
        .where(
            JobRow.tenant == tenant,
            JobRow.deleted_at == 0,
            cast(UnitRow.labels, Text) != "[]",
            *where,
        )
        .order_by(JobRow.id.desc(), UnitRow.ordinal)
        .offset(start)
        .limit(limit)
    )
    if job_id:
        statement = statement.where(JobRow.id == job_id)
    return [(job, layer, unit) for job, layer, unit in session.execute(statement)]


def read_vectors(session: Session, model: str, labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Embeddings of those labels that have been embedded by the model, float16 (dimensions,)."""
    by_hash = {hash_label(label): label for label in labels}
    found: dict[str, np.ndarray] = {}
    for some in chunks(list(by_hash), _ROWS_PER_STATEMENT):
        statement = select(LabelVectorRow.label, LabelVectorRow.vector).where(
            LabelVectorRow.model == model, LabelVectorRow.label.in_(some)
        )
        for key, vector in session.execute(statement):
            found[by_hash[key]] = np.frombuffer(vector, np.float16)
    return found


def write_vectors(session: Session, model: str, vectors: Mapping[str, np.ndarray]) -> None:
    """Keeps embeddings of labels, float16 (dimensions,); those that are kept already stay."""
    rows = [
        {"model": model, "label": hash_label(label), "vector": vector.astype(np.float16).tobytes()}
        for label, vector in vectors.items()
    ]
    insert_rows(session, LabelVectorRow, rows, ignore=True)


def list_vectors(session: Session, after: tuple[str, str], limit: int) -> list[tuple[str, str]]:
    """Model and `hash_label` of embeddings, in order, from the one after `after` on."""
    key = tuple_(LabelVectorRow.model, LabelVectorRow.label)
    statement = (
        select(LabelVectorRow.model, LabelVectorRow.label)
        .where(key > after)
        .order_by(LabelVectorRow.model, LabelVectorRow.label)
        .limit(limit)
    )
    return [(model, label) for model, label in session.execute(statement)]


def forget_vectors(session: Session, keys: Sequence[tuple[str, str]]) -> None:
    """Removes embeddings by model and `hash_label`."""
    of_model: defaultdict[str, list[str]] = defaultdict(list)
    for model, label in keys:
        of_model[model].append(label)
    for model, labels in of_model.items():  # by pairs SQLite would look through the whole table
        for some in chunks(labels, _ROWS_PER_STATEMENT):
            of_some = LabelVectorRow.label.in_(some)
            session.execute(delete(LabelVectorRow).where(LabelVectorRow.model == model, of_some))


def hash_label(label: str) -> str:
    """What the embedding of a label is kept under."""
    return hashlib.sha256(label.encode()).hexdigest()
