"""Jobs as callers see them: what is asked for, how far it is, what came out.

Field names equal those of the messages in protos/dnd/v1/coordinator.proto, where units and ranges
are written down.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from dnd.convert import enum_member, enum_value, from_message, to_message
from dnd.errors import InvalidInput, UnknownName, suggest
from dnd.types import Priority
from dnd.v1 import coordinator_pb2, types_pb2

STAGES = (
    *("index", "dissect", "exemplars", "caption", "summarize", "synthesize", "score"),
    "calibrate",
)
_JOB_STATE = coordinator_pb2.DESCRIPTOR.enum_types_by_name["JobState"]
_UNIT_STATE = coordinator_pb2.DESCRIPTOR.enum_types_by_name["UnitState"]
_PRIORITY = types_pb2.DESCRIPTOR.enum_types_by_name["Priority"]


class Method(Enum):
    """How units get their labels (docs/clip-dissect.md)."""

    DND = "dnd"
    CLIP_DISSECT = "clip-dissect"
    CASCADE = "cascade"


class JobState(Enum):
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class UnitState(Enum):
    PENDING = "pending"
    LABELED = "labeled"
    UNCERTAIN = "uncertain"
    SPARSE = "sparse"
    DEAD = "dead"
    TIED = "tied"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class LayerUnits:
    """Units of one layer; no units stand for all of them."""

    layer: str
    units: tuple[int, ...] = ()


@dataclass(frozen=True)
class Limits:
    """What may be used at most; 0 for no limit.

    Attributes:
        max_tokens: Of the language model, prompts and answers together.
        max_dollars: For these tokens, by the operator's prices.
        max_images: Drawings.
        max_units: Units that have ended.
    """

    max_tokens: int = 0
    max_dollars: float = 0.0
    max_images: int = 0
    max_units: int = 0

    @property
    def any(self) -> bool:
        """Whether there is a limit."""
        return bool(self.max_tokens or self.max_dollars or self.max_images or self.max_units)

    def reached(self, used: Usage) -> str:
        """Which limits are reached, as "1,200 of at most 1,000 tokens"; empty for none."""
        pairs = (
            (used.num_tokens, self.max_tokens, "{:,} of at most {:,} tokens"),
            (used.dollars, self.max_dollars, "${:.2f} of at most ${:.2f}"),
            (used.num_images, self.max_images, "{:,} of at most {:,} images"),
            (used.num_units, self.max_units, "{:,} of at most {:,} units"),
        )
        return ", ".join(text.format(num, most) for num, most, text in pairs if 0 < most <= num)

    def raised_by(self, other: Limits) -> Limits:
        """These limits, with those of `other` in their place that are set there."""
        return Limits(
            other.max_tokens or self.max_tokens,
            other.max_dollars or self.max_dollars,
            other.max_images or self.max_images,
            other.max_units or self.max_units,
        )


@dataclass(frozen=True)
class Usage:
    """What a job has really used; see the proto."""

    num_input_tokens: int = 0
    num_output_tokens: int = 0
    dollars: float = 0.0
    num_images: int = 0
    num_units: int = 0

    @property
    def num_tokens(self) -> int:
        return self.num_input_tokens + self.num_output_tokens


@dataclass(frozen=True)
class JobSpec:
    """What to label, with what.

    Attributes:
        model: A name of `Client.targets`, or a specification where the operator allows it.
        layers: Module paths and their units.
        probe: A name of `Client.targets`, or a union "a+b".
        profile: "paper", "default" or "starter"; empty for "default".
        overrides: Settings that differ from the profile, "synthesis.num_steps" to a JSON value.
        seed: Seed of shuffles and drawings.
        priority: Interactive jobs go before batch jobs.
        method: Describe-and-Dissect, CLIP-Dissect, or CLIP-Dissect and where that is not certain
            Describe-and-Dissect.
        concept_set: "common-english", "classes", or what `Client.create_concept_set` answered;
            empty for "common-english", or for none with Describe-and-Dissect.
        limits: The job pauses when it has used that much.
    """

    model: str
    layers: tuple[LayerUnits, ...]
    probe: str
    profile: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    priority: Priority = Priority.BATCH
    method: Method = Method.DND
    concept_set: str = ""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class StageCount:
    """How far one stage of a job is; `item_s` is the mean of items done lately, seconds."""

    stage: str
    num_done: int = 0
    num_open: int = 0
    num_failed: int = 0
    num_total: int = 0
    item_s: float = 0.0


@dataclass(frozen=True)
class Job:
    """A submitted set of units."""

    id: str
    spec: JobSpec
    state: JobState
    pause_reason: str = ""
    error: str = ""
    num_units: int = 0
    units: Mapping[UnitState, int] = field(default_factory=dict)
    stages: tuple[StageCount, ...] = ()
    created_at_s: float = 0.0
    ended_at_s: float = 0.0
    profile_json: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    num_skipped_images: int = 0
    limits: Limits = field(default_factory=Limits)
    used: Usage = field(default_factory=Usage)

    @property
    def num_ended(self) -> int:
        """Units that are no longer pending."""
        return sum(n for state, n in self.units.items() if state is not UnitState.PENDING)

    @property
    def num_failed(self) -> int:
        """Units that failed."""
        return self.units.get(UnitState.FAILED, 0)


@dataclass(frozen=True)
class StageLoad:
    """The work of one stage of a job, and who does it now; see the proto."""

    stage: str
    num_items: float
    item_s: float = 0.0
    num_threads: int = 0
    num_replicas: int = 0


@dataclass(frozen=True)
class Estimate:
    """What a job will cost; see EstimateJobResponse."""

    num_units: int = 0
    num_probe_images: int = 0
    num_captions: int = 0
    num_llm_calls: int = 0
    num_drawings: int = 0
    duration_s: float = 0.0
    num_skipped_images: int = 0
    num_input_tokens: int = 0
    num_output_tokens: int = 0
    dollars: float = 0.0
    has_price: bool = False
    gpu_hours: float = 0.0
    num_stored_bytes: int = 0
    stages: tuple[StageLoad, ...] = ()


@dataclass(frozen=True)
class ConceptSet:
    """A concept set that the server keeps, and what was left out of the list; see the proto."""

    concept_set: str
    num_concepts: int
    num_blank: int
    num_repeated: int


@dataclass(frozen=True)
class Targets:
    """What a server can label."""

    models: tuple[str, ...]
    probes: tuple[str, ...]
    profiles: tuple[str, ...]


@dataclass(frozen=True)
class UnitResult:
    """One unit of a job.

    Attributes:
        labels: Best first; empty until the unit is scored.
        record: The full record (docs/results.md); None while pending or where not asked for.
        stage: The stage that the unit is in or failed in; empty once it has ended well.
        percentile: Of its label among the concepts of the bank, 0 to 1; None where there is none.
    """

    layer: str
    unit: int
    state: UnitState
    stage: str = ""
    labels: tuple[str, ...] = ()
    record: Mapping[str, Any] | None = None
    error: str = ""
    percentile: float | None = None


@dataclass(frozen=True)
class Export:
    """A job and all its units, as they were at one moment; units can be read once."""

    job: Job
    units: Iterator[UnitResult]


@dataclass(frozen=True)
class LabelHit:
    """A unit that a search has found; `score` is the cosine of its label and the text, or 0."""

    job_id: str
    unit: UnitResult
    label: str
    score: float = 0.0


@dataclass(frozen=True)
class EvaluationSettings:
    """How labels are judged; see EvaluationSettings in coordinator.proto.

    Attributes:
        probe: Probe set all of whose images judge; empty for the judge half of the job's own.
        num_drawings: Fresh drawings of each label for CoSy, 0 for none; None is by the profile.
        layer: Only this layer; empty for all.
        max_images: Judge images at most; 0 for 10,000.
        force: Evaluate even if the judge is the very model that selected.
        seed: Of shufflings, bootstrap and drawings.
    """

    probe: str = ""
    num_drawings: int | None = None
    layer: str = ""
    max_images: int = 0
    force: bool = False
    seed: int = 0


@dataclass(frozen=True)
class EvaluationProgress:
    """How far an evaluation is: of the step's items, how many are done."""

    step: str
    num_done: int
    num_total: int


@dataclass(frozen=True)
class Garbage:
    """Artifacts that no job refers to and that have not been used for a while.

    Attributes:
        num_artifacts: Found.
        num_bytes: Their size.
        num_kept: Artifacts that stay.
        removed: Whether those found have been removed.
        num_vectors: Embeddings of labels that no unit has any more; removed with the artifacts.
    """

    num_artifacts: int
    num_bytes: int
    num_kept: int
    removed: bool
    num_vectors: int = 0


@dataclass(frozen=True)
class GarbageProgress:
    """How far a collection of garbage is: artifacts looked at in a step."""

    step: str
    num_done: int


def spec_to_message(spec: JobSpec) -> coordinator_pb2.JobSpec:
    """The message of a job's specification."""
    return coordinator_pb2.JobSpec(
        model=spec.model,
        layers=[
            coordinator_pb2.LayerUnits(layer=one.layer, units=one.units) for one in spec.layers
        ],
        probe=spec.probe,
        profile=spec.profile,
        overrides=dict(spec.overrides),
        seed=spec.seed,
        priority=enum_value(spec.priority, _PRIORITY),  # type: ignore[arg-type]
        method="" if spec.method is Method.DND else spec.method.value,
        concept_set=spec.concept_set,
        limits=limits_to_message(spec.limits) if spec.limits.any else None,
    )


def limits_to_message(limits: Limits) -> coordinator_pb2.Limits:
    """The message of limits."""
    return to_message(limits, coordinator_pb2.Limits)


def limits_from_message(message: coordinator_pb2.Limits) -> Limits:
    """The inverse of `limits_to_message`.

    Raises:
        InvalidInput: A limit is below 0, or no number.
    """
    limits = from_message(message, Limits)
    for name, value in asdict(limits).items():
        if not (math.isfinite(value) and value >= 0):
            raise InvalidInput(f"limits.{name} is {value}: expected at least 0, 0 for no limit.")
    return limits


def read_method(name: str) -> Method:
    """The method of a name; Describe-and-Dissect for an empty one.

    Raises:
        UnknownName: There is no such method.
    """
    names = [method.value for method in Method]
    if name and name not in names:
        raise UnknownName(suggest(name, names, what="method"))
    return Method(name or Method.DND.value)


def spec_from_message(message: coordinator_pb2.JobSpec) -> JobSpec:
    """The inverse of `spec_to_message`.

    Raises:
        UnknownName: It names a method that there is not.
    """
    interactive = message.priority == types_pb2.PRIORITY_INTERACTIVE
    return JobSpec(
        model=message.model,
        layers=tuple(LayerUnits(one.layer, tuple(one.units)) for one in message.layers),
        probe=message.probe,
        profile=message.profile,
        overrides=dict(message.overrides),
        seed=message.seed,
        priority=Priority.INTERACTIVE if interactive else Priority.BATCH,
        method=read_method(message.method),
        concept_set=message.concept_set,
        limits=limits_from_message(message.limits),
    )


def job_from_message(message: coordinator_pb2.Job) -> Job:
    """A job as the server answered it."""
    return Job(
        id=message.id,
        spec=spec_from_message(message.spec),
        state=enum_member(message.state, _JOB_STATE, JobState),
        pause_reason=message.pause_reason,
        error=message.error,
        num_units=message.num_units,
        units={enum_member(c.state, _UNIT_STATE, UnitState): c.num_units for c in message.units},
        stages=tuple(from_message(stage, StageCount) for stage in message.stages),
        created_at_s=message.created_at_s,
        ended_at_s=message.ended_at_s,
        profile_json=message.profile_json,
        digests=dict(message.digests),
        num_skipped_images=message.num_skipped_images,
        limits=limits_from_message(message.limits),
        used=from_message(message.used, Usage),
    )


def unit_state_number(state: UnitState | None) -> int:
    """The number of a state on the wire; 0, which stands for all, for None."""
    return enum_value(state, _UNIT_STATE) if state else 0


def unit_from_message(message: coordinator_pb2.UnitResult) -> UnitResult:
    """A unit as the server answered it."""
    return UnitResult(
        layer=message.layer,
        unit=message.unit,
        state=enum_member(message.state, _UNIT_STATE, UnitState),
        stage=message.stage,
        labels=tuple(message.labels),
        record=json.loads(message.record_json) if message.record_json else None,
        error=message.error,
        percentile=message.percentile if message.HasField("percentile") else None,
    )
