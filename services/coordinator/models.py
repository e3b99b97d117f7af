"""The record: the tables of the coordinator. `migrations/` creates them, a test compares both."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TextClause,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# No foreign keys: a check at every insert of a chunk would buy nothing; `store/deleting.py` alone
# deletes rows that others refer to.
# SQLite counts rows by itself only in columns of type INTEGER.
_SQL_TYPES = {float: Double, str: Text, dict[str, Any]: JSON, list[Any]: JSON}
RowId = BigInteger().with_variant(Integer, "sqlite")
# Partial indexes serve only queries that repeat their condition literally: use these in both.
_IS_READY = text("state = 'READY'")
_IN_FLIGHT = text("state IN ('QUEUED', 'RUNNING')")
_IS_OPEN = text("is_open")
_IS_DELETED = text("deleted_at > 0")
WORK_READY = text("work.state = 'READY'")
WORK_IN_FLIGHT = text("work.state IN ('QUEUED', 'RUNNING')")
SET_IN_FLIGHT = text("image_set.state IN ('QUEUED', 'RUNNING')")
JOB_SET_OPEN = text("job_set.is_open")
JOB_DELETED = text("job.deleted_at > 0")


def _index_where(name: str, *columns: str, where: TextClause) -> Index:
    """An index of the rows that fulfil a condition, on both databases."""
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map: ClassVar = _SQL_TYPES


class JobRow(Base):
    """A job. Pause and cancel are one flag here, checked when work is claimed and written.

    Attributes:
        frozen: What the job is frozen to: the resolved profile, digests, probe manifest, seed.
        spec: The caller's JobSpec, serialised; megabytes where units are listed one by one.
        num_live: Units that are neither dead nor tied; -1 until the index is there.
        next_ordinal: Units below it have rows.
        limits: Fields of `dnd.jobs.Limits`, as they are now.
        pause_reason: Why it was paused, unless by its owner.
        deleted_at: Seconds since 1970; 0 unless it is deleted and still has rows.
        trace: `traceparent` of the call that made it, whose trace its work joins; empty for none.
    """

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("tenant", "request_id", name="uq_job_request"),
        Index("ix_job_state", "state"),
        _index_where("ix_job_deleted", "id", where=_IS_DELETED),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64))
    request_id: Mapped[str] = mapped_column(String(64))
    body_hash: Mapped[str] = mapped_column(String(64))
    spec: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    frozen: Mapped[dict[str, Any]]
    profile: Mapped[str] = mapped_column(String(64))
    is_batch: Mapped[bool]
    state: Mapped[str] = mapped_column(String(12))
    error: Mapped[str] = mapped_column(default="")
    num_units: Mapped[int] = mapped_column(BigInteger)
    num_live: Mapped[int] = mapped_column(BigInteger, default=-1)
    num_shards: Mapped[int] = mapped_column(BigInteger)
    num_skipped_images: Mapped[int] = mapped_column(BigInteger, default=0)
    num_ended: Mapped[int] = mapped_column(BigInteger, default=0)
    next_ordinal: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[float]
    ended_at: Mapped[float] = mapped_column(default=0.0)
    limits: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    pause_reason: Mapped[str] = mapped_column(default="", server_default="")
    deleted_at: Mapped[float] = mapped_column(default=0.0, server_default="0")
    trace: Mapped[str] = mapped_column(String(64), default="", server_default="")


class JobLayerRow(Base):
    """One layer of a job, in the job's order.

    Attributes:
        ranges: The units asked for, as [first, after last] pairs.
        first_ordinal: Place of the layer's first unit among all units of the job.
        activities_ref: uint8 array artifact (units of the layer): places in `UnitActivity`.
    """

    __tablename__ = "job_layer"

    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    layer: Mapped[str]
    ranges: Mapped[list[Any]]
    num_units: Mapped[int] = mapped_column(BigInteger)
    first_ordinal: Mapped[int] = mapped_column(BigInteger)
    index_ref: Mapped[str] = mapped_column(String(80), default="")
    activities_ref: Mapped[str] = mapped_column(String(80), default="")


class UnitRow(Base):
    """One unit of a job. Its evidence lies in the artifact store.

    Attributes:
        state: A value of `dnd.jobs.UnitState`.
        stage: Where it is, or where it failed; empty once it has ended well.
        error: Why it failed; of a unit with a label, why that has no percentile.
        outputs: Stage to the reference of that stage's output (JSON).
        timings: Stage to seconds.
        set_ids: The image sets of its candidates.
        fresh_set_id: The image set of its label, drawn afresh.
        labelled_as: Its state once it has a label, unless its percentile makes it uncertain.
        auc: Of its label's drawings against the job's other drawings.
        percentile: Of its label among the concepts of the bank; None until it is calibrated.
    """

    __tablename__ = "unit"
    __table_args__ = (
        UniqueConstraint("job_id", "place", "unit", name="uq_unit"),
        Index("ix_unit_state", "job_id", "state", "ordinal"),
    )

    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    ordinal: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    place: Mapped[int]
    unit: Mapped[int]
    state: Mapped[str] = mapped_column(String(12))
    stage: Mapped[str] = mapped_column(String(12), default="")
    error: Mapped[str] = mapped_column(default="")
    labels: Mapped[list[Any]] = mapped_column(default=list)
    outputs: Mapped[dict[str, Any]] = mapped_column(default=dict)
    timings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    set_ids: Mapped[list[Any]] = mapped_column(default=list)
    fresh_set_id: Mapped[int | None] = mapped_column(BigInteger)
    labelled_as: Mapped[str] = mapped_column(String(12), default="", server_default="")
    auc: Mapped[float | None]
    percentile: Mapped[float | None]


class Claimable:
    """What can be queued, claimed and written by exactly one worker at a time.

    Attributes:
        fence: Goes up with every dispatch; a write with an older one is refused.
        lease_until: While RUNNING: silent beyond this, the worker has lost it.
        not_before: Not dispatched earlier.
        dispatches: How often it was handed out; costs nothing.
        attempts: How often it failed by its own fault; bounded.
        losses: How often its worker went away with it; bounded too, as it may be the cause.
        alone: Dispatched singly, since a batch with it failed as a whole.
        task: The task that it was handed out in.
    """

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    state: Mapped[str] = mapped_column(String(12))
    fence: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[float] = mapped_column(default=0.0)
    not_before: Mapped[float] = mapped_column(default=0.0)
    queued_at: Mapped[float] = mapped_column(default=0.0)
    dispatches: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    alone: Mapped[bool] = mapped_column(default=False)
    task: Mapped[str] = mapped_column(String(32), default="")
    owner: Mapped[str] = mapped_column(String(128), default="")
    error: Mapped[str] = mapped_column(default="")


class WorkRow(Claimable, Base):
    """One stage of one thing: a shard, a unit, a layer.

    Attributes:
        ordinal: Which shard, unit (its ordinal) or layer (its place).
        blockers: Things that must end before it becomes READY.
        output: What it gave, where no other table holds it: the reference of a shard, of a
            dissection or of a bank.
    """

    __tablename__ = "work"
    __table_args__ = (
        UniqueConstraint("job_id", "stage", "scope", "ordinal", name="uq_work"),
        _index_where("ix_work_ready", "job_id", "stage", "id", where=_IS_READY),
        _index_where("ix_work_in_flight", "stage", "state", where=_IN_FLIGHT),
    )

    job_id: Mapped[str] = mapped_column(String(32))
    stage: Mapped[str] = mapped_column(String(12))
    scope: Mapped[str] = mapped_column(String(8))
    ordinal: Mapped[int] = mapped_column(BigInteger)
    blockers: Mapped[int] = mapped_column(default=0)
    output: Mapped[str] = mapped_column(default="")


class ImageSetRow(Claimable, Base):
    """The drawings of one prompt, shared by all units and jobs that ask for them.

    Attributes:
        key: `dnd.keys.image_set_key`, with the tenant in front unless tenants share.
        images: References, in drawing order.
        seconds: What drawing it took.
    """

    __tablename__ = "image_set"
    __table_args__ = (
        UniqueConstraint("key", name="uq_image_set"),
        _index_where("ix_image_set_in_flight", "state", where=_IN_FLIGHT),
    )

    key: Mapped[str] = mapped_column(String(160))
    prompt: Mapped[str]
    images: Mapped[list[Any]] = mapped_column(default=list)
    seconds: Mapped[float] = mapped_column(default=0.0)


class JobSetRow(Base):
    """That a job needs an image set; open until the set has ended for this job.

    Attributes:
        scope: What it is to the job, and with that the settings it is drawn with.
    """

    __tablename__ = "job_set"
    __table_args__ = (
        Index("ix_job_set_key", "job_id", "key"),
        _index_where("ix_job_set_open", "job_id", "set_id", where=_IS_OPEN),
        _index_where("ix_job_set_of", "set_id", where=_IS_OPEN),
    )

    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    set_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(String(160))
    scope: Mapped[str] = mapped_column(String(8), default="prompts", server_default="prompts")
    is_open: Mapped[bool]


class SetWaitRow(Base):
    """A unit, or a job's bank, that waits for an image set; gone once the set has ended."""

    __tablename__ = "set_wait"

    set_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    ordinal: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class ResultRow(Base):
    """What a stage gave for a unit, a layer or a bank, for whoever asks the same (`reuse.py`).

    It keeps no artifact alive: garbage collection removes the row with it.
    """

    __tablename__ = "stage_result"

    key: Mapped[str] = mapped_column(String(32), primary_key=True)
    ref: Mapped[str] = mapped_column(String(80))


class CounterRow(Base):
    """How many things of a job are in a state; changed in the transaction that moves them."""

    __tablename__ = "counter"

    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(24), primary_key=True)
    state: Mapped[str] = mapped_column(String(12), primary_key=True)
    num: Mapped[int] = mapped_column(BigInteger, default=0)


class LeaseRow(Base):
    """Who leads."""

    __tablename__ = "lease"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(128))
    until: Mapped[float]


class ReplicaRow(Base):
    """A worker process that works for a stage."""

    __tablename__ = "replica"

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    stage: Mapped[str] = mapped_column(String(12), primary_key=True)
    threads: Mapped[int]
    started_at: Mapped[float]
    seen_at: Mapped[float]


class StageAverageRow(Base):
    """Measured time of one item of a stage under a profile, a moving average."""

    __tablename__ = "stage_average"

    stage: Mapped[str] = mapped_column(String(12), primary_key=True)
    profile: Mapped[str] = mapped_column(String(64), primary_key=True)
    item_s: Mapped[float]
    num_items: Mapped[int] = mapped_column(BigInteger)


class StageHealthRow(Base):
    """Since when a stage's service has not answered; 0 while it does."""

    __tablename__ = "stage_health"

    stage: Mapped[str] = mapped_column(String(12), primary_key=True)
    down_since: Mapped[float]


class StagePauseRow(Base):
    """A stage that is held back, for one job or (with an empty job) for all."""

    __tablename__ = "stage_pause"

    stage: Mapped[str] = mapped_column(String(12), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    reason: Mapped[str]
    since: Mapped[float]
    probe_at: Mapped[float]
    delay_s: Mapped[float]
    is_probing: Mapped[bool]


class TokenRow(Base):
    """Who may call, on behalf of which tenant. The secret is not kept.

    Attributes:
        secret_hash: `dnd.tokens.hash_secret`.
        role: A value of `dnd.tokens.Role`.
        revoked_at: Seconds since 1970; 0 while it is valid.
    """

    __tablename__ = "token"
    __table_args__ = (UniqueConstraint("secret_hash", name="uq_token_hash"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(64))
    tenant: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(12))
    created_at: Mapped[float]
    revoked_at: Mapped[float] = mapped_column(default=0.0)


class ConceptSetRow(Base):
    """A list of concepts that a tenant has given: no other one's jobs can name it."""

    __tablename__ = "concept_set"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    ref: Mapped[str] = mapped_column(String(80), primary_key=True)


class LabelVectorRow(Base):
    """The embedding of a label, made once for all who search.

    Attributes:
        model: Digest of the scorer's weights.
        label: SHA-256 of its text.
        vector: float16, L2-normalised.
    """

    __tablename__ = "label_vector"

    model: Mapped[str] = mapped_column(String(80), primary_key=True)
    label: Mapped[str] = mapped_column(String(64), primary_key=True)
    vector: Mapped[bytes] = mapped_column(LargeBinary)
