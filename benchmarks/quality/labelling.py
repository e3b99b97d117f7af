"""One job over units whose concept is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.quality.sets import UnitSet
from dnd.client import Client
from dnd.jobs import Job, JobSpec, LayerUnits, Method, UnitResult


def label_units(
    client: Client,
    one: UnitSet,
    units: Sequence[int],
    changes: Mapping[str, Any] | None = None,
    method: Method = Method.DND,
    concept_set: str = "",
) -> tuple[Job, dict[int, UnitResult]]:
    """Labels units by the starter profile; the job as it ended, and its units with their records.

    Args:
        changes: Settings that differ from the profile, by their paths.
    """
    spec = JobSpec(
        one.model,
        (LayerUnits(one.layer, tuple(sorted(units))),),
        one.probe,
        "starter",
        overrides={path: json.dumps(value) for path, value in (changes or {}).items()},
        method=method,
        concept_set=concept_set,
    )
    job = client.create_job(spec)
    for current in client.watch(job.id):
        job = current
    return job, {unit.unit: unit for unit in client.labels(job.id, with_records=True)}
