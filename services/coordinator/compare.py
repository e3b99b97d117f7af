"""The labels of a layer side by side, once every unit of the job has ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import select

from dnd import stages
from dnd.clients import Services
from dnd.stages import Description, Plan
from dnd.types import ImageSet
from dnd_services.coordinator import outputs, states
from dnd_services.coordinator.frozen import artifact_key
from dnd_services.coordinator.models import ImageSetRow, JobLayerRow, JobRow, UnitRow, WorkRow
from dnd_services.coordinator.outcomes import LabelsCompared
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.store.bulk import update_rows
from dnd_services.coordinator.store.claims import Ticket, find_held, read_rows
from dnd_services.coordinator.store.sets import sample_sets

MAX_OTHER_SETS = 200
"""Image sets that stand for all drawings of a job, at most."""
_UNITS_AT_ONCE = 256


def compare_layer(
    store: Store, services: Services, plan: Plan, job: JobRow, layer: JobLayerRow, ticket: Ticket
) -> LabelsCompared:
    """AUC of each label's drawings against the job's other drawings (`stages.compare_labels`).

    The others are the job's sets with the smallest keys and the sets of the labels of the same
    stretch of units: neither depends on the order of work. Each stretch is written on its own, as
    a layer may have a million units and others write too; all of them under the ticket of the work.

    Raises:
        DndError: The drawings cannot be measured.
    """
    with store.reading() as session:
        others = [_image_set(row) for row in sample_sets(session, job.id, MAX_OTHER_SETS)]
    for units in _labelled_units(store, job, layer):
        labels, own = _label_sets(store, services, plan, units)
        sets = {one.key: one for one in (*others, *own)}
        answers = stages.compare_labels(
            services,
            plan,
            layer.layer,
            [(unit.unit, key) for unit, key in labels],
            [sets[key] for key in sorted(sets)],
        )
        aucs = [
            {"job_id": job.id, "ordinal": unit.ordinal, "auc": auc}
            for (unit, _), auc in zip(labels, answers, strict=True)
        ]
        if aucs and not _write(store, ticket, aucs):
            break  # somebody else has the work by now
    return LabelsCompared()


def _write(store: Store, ticket: Ticket, aucs: list[dict[str, Any]]) -> bool:
    """Writes AUCs of units while the work is held; whether it is."""
    with store.writing() as session:
        if not find_held(session, WorkRow, [ticket]):
            return False
        update_rows(session, UnitRow, aucs)
        return True


def _labelled_units(store: Store, job: JobRow, layer: JobLayerRow) -> Iterator[list[UnitRow]]:
    last = layer.first_ordinal + layer.num_units
    for first in range(layer.first_ordinal, last, _UNITS_AT_ONCE):
        with store.reading() as session:
            statement = (
                select(UnitRow)
                .where(
                    UnitRow.job_id == job.id,
                    UnitRow.ordinal >= first,
                    UnitRow.ordinal < min(first + _UNITS_AT_ONCE, last),
                )
                .order_by(UnitRow.ordinal)
            )
            units = [unit for unit in session.scalars(statement) if "score" in unit.outputs]
        if units:
            yield units


def _label_sets(
    store: Store, services: Services, plan: Plan, units: list[UnitRow]
) -> tuple[list[tuple[UnitRow, str]], list[ImageSet]]:
    """(unit, key of its label's set), and those sets."""
    with store.reading() as session:
        ids = sorted({set_id for unit in units for set_id in unit.set_ids})
        rows = [
            row
            for start in range(0, len(ids), 500)
            for row in read_rows(
                session, ImageSetRow, ids[start : start + 500], lock=False
            ).values()
        ]
    by_key = {artifact_key(row.key): row for row in rows if row.state == states.DONE}
    labels = []
    for unit in units:
        description = outputs.load(services.artifacts, unit.outputs["score"], Description)
        best = description.ranking.scores[description.ranking.labels[0]].candidate
        key = stages.image_set_key(plan, description.scored[best].prompt)
        if key in by_key:
            labels.append((unit, key))
    keys = sorted({key for _, key in labels})
    return labels, [_image_set(by_key[key]) for key in keys]


def _image_set(row: ImageSetRow) -> ImageSet:
    return ImageSet(artifact_key(row.key), tuple(row.images))
