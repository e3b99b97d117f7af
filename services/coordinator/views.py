"""Rows as messages: jobs, units, records."""

from __future__ import annotations

import json
from typing import Any

from dnd import profiles
from dnd.artifacts import ArtifactStore
from dnd.calibration import Calibration
from dnd.convert import enum_value, to_message
from dnd.errors import NotFound
from dnd.jobs import JobState, Method, UnitState, limits_to_message
from dnd.records import JobFacts, UnitFacts, build_record
from dnd.stages import Captions, Description
from dnd.types import Proposal, UnitExemplars
from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator import outputs
from dnd_services.coordinator.dissections import open_dissection
from dnd_services.coordinator.frozen import method_of, plan_of
from dnd_services.coordinator.models import JobRow
from dnd_services.coordinator.store.reading import Progress, UnitView
from dnd_services.coordinator.store.spending import limits_of

_JOB_STATE = pb2.DESCRIPTOR.enum_types_by_name["JobState"]
_UNIT_STATE = pb2.DESCRIPTOR.enum_types_by_name["UnitState"]
_NEED_LABELS = (UnitState.DEAD, UnitState.TIED, UnitState.SPARSE)
_OUTPUTS = {
    "exemplars": ("exemplars", UnitExemplars),
    "caption": ("captions", Captions),
    "summarize": ("proposal", Proposal),
    "score": ("description", Description),
    "calibrate": ("calibration", Calibration),
}


def job_message(job: JobRow, progress: Progress) -> pb2.Job:
    """A job and how far it is."""
    return pb2.Job(
        id=job.id,
        spec=pb2.JobSpec.FromString(job.spec),
        state=enum_value(JobState(job.state), _JOB_STATE),  # type: ignore[arg-type]
        pause_reason=progress.pause_reason,
        error=job.error,
        num_units=job.num_units,
        units=[
            pb2.UnitCount(state=enum_value(state, _UNIT_STATE), num_units=num)  # type: ignore[arg-type]
            for state, num in progress.units.items()
        ],
        stages=[
            pb2.StageCount(
                stage=one.stage,
                num_done=one.num_done,
                num_open=one.num_open,
                num_failed=one.num_failed,
                num_total=one.num_total,
                item_s=one.item_s,
            )
            for one in progress.stages
        ],
        created_at_s=job.created_at,
        ended_at_s=job.ended_at,
        profile_json=job.frozen["profile"],
        digests=job.frozen["digests"],
        num_skipped_images=job.num_skipped_images,
        limits=limits_to_message(limits_of(job)),
        used=to_message(progress.used, pb2.Usage),
    )


def unit_message(job: JobRow, view: UnitView) -> pb2.UnitResult:
    """A unit without its record."""
    row = view.row
    stage = row.stage if row else ""
    if not stage and view.state in (UnitState.PENDING, UnitState.FAILED):
        stage = "index"
    return pb2.UnitResult(
        layer=view.layer,
        unit=view.unit,
        state=enum_value(view.state, _UNIT_STATE),  # type: ignore[arg-type]
        stage=stage,
        labels=row.labels if row else (),
        error=error_of(job, view),
        percentile=row.percentile if row else None,
    )


def record_json(job: JobRow, view: UnitView, artifacts: ArtifactStore, error: str) -> str:
    """The record of a unit as JSON."""
    record = read_record(job, view, artifacts, error)
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def error_of(job: JobRow, view: UnitView) -> str:
    """Why a unit has failed; empty if it has not."""
    if view.state is not UnitState.FAILED:
        return ""
    return (view.row.error if view.row else "") or job.error


def read_record(
    job: JobRow, view: UnitView, artifacts: ArtifactStore, error: str
) -> dict[str, Any]:
    """The record of a unit, from what its stages have left in the artifact store."""
    found: dict[str, Any] = {}
    stored = view.row.outputs if view.row else {}
    for stage, (name, cls) in _OUTPUTS.items():
        if stage in stored:
            try:
                found[name] = outputs.load(artifacts, stored[stage], cls)
            except NotFound as lost:
                raise NotFound(
                    f"Unit {view.unit} of layer {view.layer!r} of job {job.id} has lost evidence: "
                    f"{lost.message} Was the artifact store emptied?"
                ) from None
    if ref := stored.get("dissect"):
        plan = plan_of(job)
        dissection = open_dissection(artifacts, ref, plan.concepts_ref, plan.manifest_ref)
        found["dissection"] = dissection.unit(view.unit)
    facts = UnitFacts(
        layer=view.layer,
        unit=view.unit,
        state=view.state.value,
        method=_method_of(job, view),
        auc=view.row.auc if view.row else None,
        timings=view.row.timings if view.row else {},
        error=error,
        uncalibrated=view.row.error if view.row and view.row.labels and not error else "",
        **found,
    )
    return build_record(job_facts(job), facts)


def _method_of(job: JobRow, view: UnitView) -> str:
    """What described the unit; empty if nothing did, or not yet."""
    row = view.row
    if row is None or (view.state in _NEED_LABELS and not row.labels):
        return ""
    described = method_of(job) is Method.DND or row.stage or row.timings
    method = Method.DND if described else Method.CLIP_DISSECT
    return str(method.value)


def job_facts(job: JobRow) -> JobFacts:
    """What all records of a job have in common."""
    frozen = job.frozen
    return JobFacts(
        job=job.id,
        model=frozen["model"],
        probe=frozen["probe"],
        profile=profiles.from_json(frozen["profile"]),
        seed=frozen["seed"],
        digests=frozen["digests"],
    )
