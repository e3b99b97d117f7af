from dnd.v1 import activations_pb2 as _activations_pb2
from dnd.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_PAUSED: _ClassVar[JobState]
    JOB_STATE_COMPLETED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]

class UnitState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNIT_STATE_UNSPECIFIED: _ClassVar[UnitState]
    UNIT_STATE_PENDING: _ClassVar[UnitState]
    UNIT_STATE_LABELED: _ClassVar[UnitState]
    UNIT_STATE_SPARSE: _ClassVar[UnitState]
    UNIT_STATE_DEAD: _ClassVar[UnitState]
    UNIT_STATE_TIED: _ClassVar[UnitState]
    UNIT_STATE_FAILED: _ClassVar[UnitState]
    UNIT_STATE_CANCELLED: _ClassVar[UnitState]
    UNIT_STATE_UNCERTAIN: _ClassVar[UnitState]

class SearchMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEARCH_MODE_UNSPECIFIED: _ClassVar[SearchMode]
    SEARCH_MODE_WORDS: _ClassVar[SearchMode]
    SEARCH_MODE_MEANING: _ClassVar[SearchMode]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_READ: _ClassVar[Role]
    ROLE_SUBMIT: _ClassVar[Role]
    ROLE_ADMIN: _ClassVar[Role]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_PAUSED: JobState
JOB_STATE_COMPLETED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState
UNIT_STATE_UNSPECIFIED: UnitState
UNIT_STATE_PENDING: UnitState
UNIT_STATE_LABELED: UnitState
UNIT_STATE_SPARSE: UnitState
UNIT_STATE_DEAD: UnitState
UNIT_STATE_TIED: UnitState
UNIT_STATE_FAILED: UnitState
UNIT_STATE_CANCELLED: UnitState
UNIT_STATE_UNCERTAIN: UnitState
SEARCH_MODE_UNSPECIFIED: SearchMode
SEARCH_MODE_WORDS: SearchMode
SEARCH_MODE_MEANING: SearchMode
ROLE_UNSPECIFIED: Role
ROLE_READ: Role
ROLE_SUBMIT: Role
ROLE_ADMIN: Role

class LayerUnits(_message.Message):
    __slots__ = ("layer", "units")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    layer: str
    units: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, layer: _Optional[str] = ..., units: _Optional[_Iterable[int]] = ...) -> None: ...

class JobSpec(_message.Message):
    __slots__ = ("model", "layers", "probe", "profile", "overrides", "seed", "priority", "method", "concept_set", "limits")
    class OverridesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CONCEPT_SET_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    model: str
    layers: _containers.RepeatedCompositeFieldContainer[LayerUnits]
    probe: str
    profile: str
    overrides: _containers.ScalarMap[str, str]
    seed: int
    priority: _types_pb2.Priority
    method: str
    concept_set: str
    limits: Limits
    def __init__(self, model: _Optional[str] = ..., layers: _Optional[_Iterable[_Union[LayerUnits, _Mapping]]] = ..., probe: _Optional[str] = ..., profile: _Optional[str] = ..., overrides: _Optional[_Mapping[str, str]] = ..., seed: _Optional[int] = ..., priority: _Optional[_Union[_types_pb2.Priority, str]] = ..., method: _Optional[str] = ..., concept_set: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_tokens", "max_dollars", "max_images", "max_units")
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_DOLLARS_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_UNITS_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    max_dollars: float
    max_images: int
    max_units: int
    def __init__(self, max_tokens: _Optional[int] = ..., max_dollars: _Optional[float] = ..., max_images: _Optional[int] = ..., max_units: _Optional[int] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("num_input_tokens", "num_output_tokens", "dollars", "num_images", "num_units")
    NUM_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DOLLARS_FIELD_NUMBER: _ClassVar[int]
    NUM_IMAGES_FIELD_NUMBER: _ClassVar[int]
    NUM_UNITS_FIELD_NUMBER: _ClassVar[int]
    num_input_tokens: int
    num_output_tokens: int
    dollars: float
    num_images: int
    num_units: int
    def __init__(self, num_input_tokens: _Optional[int] = ..., num_output_tokens: _Optional[int] = ..., dollars: _Optional[float] = ..., num_images: _Optional[int] = ..., num_units: _Optional[int] = ...) -> None: ...

class StageCount(_message.Message):
    __slots__ = ("stage", "num_done", "num_open", "num_failed", "num_total", "item_s")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    NUM_DONE_FIELD_NUMBER: _ClassVar[int]
    NUM_OPEN_FIELD_NUMBER: _ClassVar[int]
    NUM_FAILED_FIELD_NUMBER: _ClassVar[int]
    NUM_TOTAL_FIELD_NUMBER: _ClassVar[int]
    ITEM_S_FIELD_NUMBER: _ClassVar[int]
    stage: str
    num_done: int
    num_open: int
    num_failed: int
    num_total: int
    item_s: float
    def __init__(self, stage: _Optional[str] = ..., num_done: _Optional[int] = ..., num_open: _Optional[int] = ..., num_failed: _Optional[int] = ..., num_total: _Optional[int] = ..., item_s: _Optional[float] = ...) -> None: ...

class UnitCount(_message.Message):
    __slots__ = ("state", "num_units")
    STATE_FIELD_NUMBER: _ClassVar[int]
    NUM_UNITS_FIELD_NUMBER: _ClassVar[int]
    state: UnitState
    num_units: int
    def __init__(self, state: _Optional[_Union[UnitState, str]] = ..., num_units: _Optional[int] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("id", "spec", "state", "pause_reason", "error", "num_units", "units", "stages", "created_at_s", "ended_at_s", "profile_json", "digests", "num_skipped_images", "limits", "used")
    class DigestsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PAUSE_REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NUM_UNITS_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_S_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_S_FIELD_NUMBER: _ClassVar[int]
    PROFILE_JSON_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    NUM_SKIPPED_IMAGES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    id: str
    spec: JobSpec
    state: JobState
    pause_reason: str
    error: str
    num_units: int
    units: _containers.RepeatedCompositeFieldContainer[UnitCount]
    stages: _containers.RepeatedCompositeFieldContainer[StageCount]
    created_at_s: float
    ended_at_s: float
    profile_json: str
    digests: _containers.ScalarMap[str, str]
    num_skipped_images: int
    limits: Limits
    used: Usage
    def __init__(self, id: _Optional[str] = ..., spec: _Optional[_Union[JobSpec, _Mapping]] = ..., state: _Optional[_Union[JobState, str]] = ..., pause_reason: _Optional[str] = ..., error: _Optional[str] = ..., num_units: _Optional[int] = ..., units: _Optional[_Iterable[_Union[UnitCount, _Mapping]]] = ..., stages: _Optional[_Iterable[_Union[StageCount, _Mapping]]] = ..., created_at_s: _Optional[float] = ..., ended_at_s: _Optional[float] = ..., profile_json: _Optional[str] = ..., digests: _Optional[_Mapping[str, str]] = ..., num_skipped_images: _Optional[int] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., used: _Optional[_Union[Usage, _Mapping]] = ...) -> None: ...

class ListTargetsRequest(_message.Message):
    __slots__ = ("context",)
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ...) -> None: ...

class ListTargetsResponse(_message.Message):
    __slots__ = ("models", "probes", "profiles")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    PROBES_FIELD_NUMBER: _ClassVar[int]
    PROFILES_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedScalarFieldContainer[str]
    probes: _containers.RepeatedScalarFieldContainer[str]
    profiles: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, models: _Optional[_Iterable[str]] = ..., probes: _Optional[_Iterable[str]] = ..., profiles: _Optional[_Iterable[str]] = ...) -> None: ...

class ListTargetLayersRequest(_message.Message):
    __slots__ = ("context", "model")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    model: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., model: _Optional[str] = ...) -> None: ...

class ListTargetLayersResponse(_message.Message):
    __slots__ = ("layers",)
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedCompositeFieldContainer[_activations_pb2.LayerInfo]
    def __init__(self, layers: _Optional[_Iterable[_Union[_activations_pb2.LayerInfo, _Mapping]]] = ...) -> None: ...

class EstimateJobRequest(_message.Message):
    __slots__ = ("context", "spec")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    spec: JobSpec
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., spec: _Optional[_Union[JobSpec, _Mapping]] = ...) -> None: ...

class EstimateJobResponse(_message.Message):
    __slots__ = ("num_units", "num_probe_images", "num_captions", "num_llm_calls", "num_drawings", "duration_s", "num_skipped_images", "num_input_tokens", "num_output_tokens", "dollars", "has_price", "gpu_hours", "num_stored_bytes", "stages")
    NUM_UNITS_FIELD_NUMBER: _ClassVar[int]
    NUM_PROBE_IMAGES_FIELD_NUMBER: _ClassVar[int]
    NUM_CAPTIONS_FIELD_NUMBER: _ClassVar[int]
    NUM_LLM_CALLS_FIELD_NUMBER: _ClassVar[int]
    NUM_DRAWINGS_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    NUM_SKIPPED_IMAGES_FIELD_NUMBER: _ClassVar[int]
    NUM_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DOLLARS_FIELD_NUMBER: _ClassVar[int]
    HAS_PRICE_FIELD_NUMBER: _ClassVar[int]
    GPU_HOURS_FIELD_NUMBER: _ClassVar[int]
    NUM_STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    num_units: int
    num_probe_images: int
    num_captions: int
    num_llm_calls: int
    num_drawings: int
    duration_s: float
    num_skipped_images: int
    num_input_tokens: int
    num_output_tokens: int
    dollars: float
    has_price: bool
    gpu_hours: float
    num_stored_bytes: int
    stages: _containers.RepeatedCompositeFieldContainer[StageLoad]
    def __init__(self, num_units: _Optional[int] = ..., num_probe_images: _Optional[int] = ..., num_captions: _Optional[int] = ..., num_llm_calls: _Optional[int] = ..., num_drawings: _Optional[int] = ..., duration_s: _Optional[float] = ..., num_skipped_images: _Optional[int] = ..., num_input_tokens: _Optional[int] = ..., num_output_tokens: _Optional[int] = ..., dollars: _Optional[float] = ..., has_price: _Optional[bool] = ..., gpu_hours: _Optional[float] = ..., num_stored_bytes: _Optional[int] = ..., stages: _Optional[_Iterable[_Union[StageLoad, _Mapping]]] = ...) -> None: ...

class StageLoad(_message.Message):
    __slots__ = ("stage", "num_items", "item_s", "num_threads", "num_replicas")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    NUM_ITEMS_FIELD_NUMBER: _ClassVar[int]
    ITEM_S_FIELD_NUMBER: _ClassVar[int]
    NUM_THREADS_FIELD_NUMBER: _ClassVar[int]
    NUM_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    stage: str
    num_items: float
    item_s: float
    num_threads: int
    num_replicas: int
    def __init__(self, stage: _Optional[str] = ..., num_items: _Optional[float] = ..., item_s: _Optional[float] = ..., num_threads: _Optional[int] = ..., num_replicas: _Optional[int] = ...) -> None: ...

class CreateConceptSetRequest(_message.Message):
    __slots__ = ("context", "name", "text")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    name: str
    text: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., name: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class CreateConceptSetResponse(_message.Message):
    __slots__ = ("concept_set", "num_concepts", "num_blank", "num_repeated")
    CONCEPT_SET_FIELD_NUMBER: _ClassVar[int]
    NUM_CONCEPTS_FIELD_NUMBER: _ClassVar[int]
    NUM_BLANK_FIELD_NUMBER: _ClassVar[int]
    NUM_REPEATED_FIELD_NUMBER: _ClassVar[int]
    concept_set: str
    num_concepts: int
    num_blank: int
    num_repeated: int
    def __init__(self, concept_set: _Optional[str] = ..., num_concepts: _Optional[int] = ..., num_blank: _Optional[int] = ..., num_repeated: _Optional[int] = ...) -> None: ...

class CreateJobRequest(_message.Message):
    __slots__ = ("context", "request_id", "spec")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    request_id: str
    spec: JobSpec
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., request_id: _Optional[str] = ..., spec: _Optional[_Union[JobSpec, _Mapping]] = ...) -> None: ...

class CreateJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("context", "job_id")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    job_id: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., job_id: _Optional[str] = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("context", "page_size", "page_token")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    page_size: int
    page_token: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    next_page_token: str
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchJobRequest(_message.Message):
    __slots__ = ("context", "job_id", "resume_token")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    job_id: str
    resume_token: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., job_id: _Optional[str] = ..., resume_token: _Optional[str] = ...) -> None: ...

class WatchJobResponse(_message.Message):
    __slots__ = ("job", "resume_token")
    JOB_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    job: Job
    resume_token: str
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., resume_token: _Optional[str] = ...) -> None: ...

class PauseJobRequest(_message.Message):
    __slots__ = ("context", "job_id")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    job_id: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., job_id: _Optional[str] = ...) -> None: ...

class PauseJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ResumeJobRequest(_message.Message):
    __slots__ = ("context", "job_id", "limits")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    job_id: str
    limits: Limits
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., job_id: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class ResumeJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("context", "job_id")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    job_id: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., job_id: _Optional[str] = ...) -> None: ...

class CancelJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class RetryJobRequest(_message.Message):
    __slots__ = ("context", "job_id")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    job_id: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., job_id: _Optional[str] = ...) -> None: ...

class RetryJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class DeleteJobRequest(_message.Message):
    __slots__ = ("context", "job_id")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    job_id: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., job_id: _Optional[str] = ...) -> None: ...

class DeleteJobResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CollectGarbageRequest(_message.Message):
    __slots__ = ("context", "grace_s", "remove")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    grace_s: float
    remove: bool
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., grace_s: _Optional[float] = ..., remove: _Optional[bool] = ...) -> None: ...

class GarbageProgress(_message.Message):
    __slots__ = ("step", "num_done")
    STEP_FIELD_NUMBER: _ClassVar[int]
    NUM_DONE_FIELD_NUMBER: _ClassVar[int]
    step: str
    num_done: int
    def __init__(self, step: _Optional[str] = ..., num_done: _Optional[int] = ...) -> None: ...

class Garbage(_message.Message):
    __slots__ = ("num_artifacts", "num_bytes", "num_kept", "removed", "num_vectors")
    NUM_ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUM_KEPT_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    NUM_VECTORS_FIELD_NUMBER: _ClassVar[int]
    num_artifacts: int
    num_bytes: int
    num_kept: int
    removed: bool
    num_vectors: int
    def __init__(self, num_artifacts: _Optional[int] = ..., num_bytes: _Optional[int] = ..., num_kept: _Optional[int] = ..., removed: _Optional[bool] = ..., num_vectors: _Optional[int] = ...) -> None: ...

class CollectGarbageResponse(_message.Message):
    __slots__ = ("progress", "garbage")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    GARBAGE_FIELD_NUMBER: _ClassVar[int]
    progress: GarbageProgress
    garbage: Garbage
    def __init__(self, progress: _Optional[_Union[GarbageProgress, _Mapping]] = ..., garbage: _Optional[_Union[Garbage, _Mapping]] = ...) -> None: ...

class UnitResult(_message.Message):
    __slots__ = ("layer", "unit", "state", "stage", "labels", "record_json", "error", "percentile")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RECORD_JSON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    layer: str
    unit: int
    state: UnitState
    stage: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    record_json: str
    error: str
    percentile: float
    def __init__(self, layer: _Optional[str] = ..., unit: _Optional[int] = ..., state: _Optional[_Union[UnitState, str]] = ..., stage: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., record_json: _Optional[str] = ..., error: _Optional[str] = ..., percentile: _Optional[float] = ...) -> None: ...

class GetUnitRequest(_message.Message):
    __slots__ = ("context", "job_id", "layer", "unit")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    job_id: str
    layer: str
    unit: int
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., job_id: _Optional[str] = ..., layer: _Optional[str] = ..., unit: _Optional[int] = ...) -> None: ...

class GetUnitResponse(_message.Message):
    __slots__ = ("unit",)
    UNIT_FIELD_NUMBER: _ClassVar[int]
    unit: UnitResult
    def __init__(self, unit: _Optional[_Union[UnitResult, _Mapping]] = ...) -> None: ...

class ListLabelsRequest(_message.Message):
    __slots__ = ("context", "job_id", "layer", "state", "page_size", "page_token", "with_records", "min_percentile", "max_percentile", "label_text")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WITH_RECORDS_FIELD_NUMBER: _ClassVar[int]
    MIN_PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    MAX_PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    LABEL_TEXT_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    job_id: str
    layer: str
    state: UnitState
    page_size: int
    page_token: str
    with_records: bool
    min_percentile: float
    max_percentile: float
    label_text: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., job_id: _Optional[str] = ..., layer: _Optional[str] = ..., state: _Optional[_Union[UnitState, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., with_records: _Optional[bool] = ..., min_percentile: _Optional[float] = ..., max_percentile: _Optional[float] = ..., label_text: _Optional[str] = ...) -> None: ...

class ListLabelsResponse(_message.Message):
    __slots__ = ("units", "next_page_token")
    UNITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    units: _containers.RepeatedCompositeFieldContainer[UnitResult]
    next_page_token: str
    def __init__(self, units: _Optional[_Iterable[_Union[UnitResult, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ExportLabelsRequest(_message.Message):
    __slots__ = ("context", "job_id")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    job_id: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., job_id: _Optional[str] = ...) -> None: ...

class ExportLabelsResponse(_message.Message):
    __slots__ = ("job", "unit")
    JOB_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    job: Job
    unit: UnitResult
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., unit: _Optional[_Union[UnitResult, _Mapping]] = ...) -> None: ...

class SearchLabelsRequest(_message.Message):
    __slots__ = ("context", "text", "mode", "job_id", "page_size", "page_token")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    text: str
    mode: SearchMode
    job_id: str
    page_size: int
    page_token: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., text: _Optional[str] = ..., mode: _Optional[_Union[SearchMode, str]] = ..., job_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class LabelHit(_message.Message):
    __slots__ = ("job_id", "unit", "label", "score")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    unit: UnitResult
    label: str
    score: float
    def __init__(self, job_id: _Optional[str] = ..., unit: _Optional[_Union[UnitResult, _Mapping]] = ..., label: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class SearchLabelsResponse(_message.Message):
    __slots__ = ("hits", "next_page_token")
    HITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[LabelHit]
    next_page_token: str
    def __init__(self, hits: _Optional[_Iterable[_Union[LabelHit, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetImagesRequest(_message.Message):
    __slots__ = ("context", "job_id", "refs", "max_side")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    REFS_FIELD_NUMBER: _ClassVar[int]
    MAX_SIDE_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    job_id: str
    refs: _containers.RepeatedScalarFieldContainer[str]
    max_side: int
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., job_id: _Optional[str] = ..., refs: _Optional[_Iterable[str]] = ..., max_side: _Optional[int] = ...) -> None: ...

class GetImagesResponse(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, images: _Optional[_Iterable[bytes]] = ...) -> None: ...

class EvaluationSettings(_message.Message):
    __slots__ = ("probe", "num_drawings", "layer", "max_images", "force", "seed")
    PROBE_FIELD_NUMBER: _ClassVar[int]
    NUM_DRAWINGS_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGES_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    probe: str
    num_drawings: int
    layer: str
    max_images: int
    force: bool
    seed: int
    def __init__(self, probe: _Optional[str] = ..., num_drawings: _Optional[int] = ..., layer: _Optional[str] = ..., max_images: _Optional[int] = ..., force: _Optional[bool] = ..., seed: _Optional[int] = ...) -> None: ...

class UnitLabel(_message.Message):
    __slots__ = ("layer", "unit", "label")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    layer: str
    unit: int
    label: str
    def __init__(self, layer: _Optional[str] = ..., unit: _Optional[int] = ..., label: _Optional[str] = ...) -> None: ...

class LabelSet(_message.Message):
    __slots__ = ("name", "labels")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.RepeatedCompositeFieldContainer[UnitLabel]
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Iterable[_Union[UnitLabel, _Mapping]]] = ...) -> None: ...

class EvaluateJobRequest(_message.Message):
    __slots__ = ("context", "job_id", "settings", "label_sets")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    LABEL_SETS_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    job_id: str
    settings: EvaluationSettings
    label_sets: _containers.RepeatedCompositeFieldContainer[LabelSet]
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., job_id: _Optional[str] = ..., settings: _Optional[_Union[EvaluationSettings, _Mapping]] = ..., label_sets: _Optional[_Iterable[_Union[LabelSet, _Mapping]]] = ...) -> None: ...

class EvaluationProgress(_message.Message):
    __slots__ = ("step", "num_done", "num_total")
    STEP_FIELD_NUMBER: _ClassVar[int]
    NUM_DONE_FIELD_NUMBER: _ClassVar[int]
    NUM_TOTAL_FIELD_NUMBER: _ClassVar[int]
    step: str
    num_done: int
    num_total: int
    def __init__(self, step: _Optional[str] = ..., num_done: _Optional[int] = ..., num_total: _Optional[int] = ...) -> None: ...

class EvaluateJobResponse(_message.Message):
    __slots__ = ("progress", "evaluation_json")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_JSON_FIELD_NUMBER: _ClassVar[int]
    progress: EvaluationProgress
    evaluation_json: str
    def __init__(self, progress: _Optional[_Union[EvaluationProgress, _Mapping]] = ..., evaluation_json: _Optional[str] = ...) -> None: ...

class TryImageRequest(_message.Message):
    __slots__ = ("context", "job_id", "image")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    job_id: str
    image: bytes
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., job_id: _Optional[str] = ..., image: _Optional[bytes] = ...) -> None: ...

class ExcitedUnit(_message.Message):
    __slots__ = ("layer", "unit", "label", "activation", "share", "weakest_exemplar", "strongest_exemplar", "exemplar_level", "map")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    WEAKEST_EXEMPLAR_FIELD_NUMBER: _ClassVar[int]
    STRONGEST_EXEMPLAR_FIELD_NUMBER: _ClassVar[int]
    EXEMPLAR_LEVEL_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    layer: str
    unit: int
    label: str
    activation: float
    share: float
    weakest_exemplar: float
    strongest_exemplar: float
    exemplar_level: float
    map: bytes
    def __init__(self, layer: _Optional[str] = ..., unit: _Optional[int] = ..., label: _Optional[str] = ..., activation: _Optional[float] = ..., share: _Optional[float] = ..., weakest_exemplar: _Optional[float] = ..., strongest_exemplar: _Optional[float] = ..., exemplar_level: _Optional[float] = ..., map: _Optional[bytes] = ...) -> None: ...

class TryImageResponse(_message.Message):
    __slots__ = ("units",)
    UNITS_FIELD_NUMBER: _ClassVar[int]
    units: _containers.RepeatedCompositeFieldContainer[ExcitedUnit]
    def __init__(self, units: _Optional[_Iterable[_Union[ExcitedUnit, _Mapping]]] = ...) -> None: ...

class TryWordsRequest(_message.Message):
    __slots__ = ("context", "job_id", "layer", "unit", "words")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    job_id: str
    layer: str
    unit: int
    words: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., job_id: _Optional[str] = ..., layer: _Optional[str] = ..., unit: _Optional[int] = ..., words: _Optional[str] = ...) -> None: ...

class MeasuredImage(_message.Message):
    __slots__ = ("image", "activation")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    activation: float
    def __init__(self, image: _Optional[bytes] = ..., activation: _Optional[float] = ...) -> None: ...

class TryWordsResponse(_message.Message):
    __slots__ = ("words", "drawings", "exemplars", "num_above")
    WORDS_FIELD_NUMBER: _ClassVar[int]
    DRAWINGS_FIELD_NUMBER: _ClassVar[int]
    EXEMPLARS_FIELD_NUMBER: _ClassVar[int]
    NUM_ABOVE_FIELD_NUMBER: _ClassVar[int]
    words: str
    drawings: _containers.RepeatedCompositeFieldContainer[MeasuredImage]
    exemplars: _containers.RepeatedCompositeFieldContainer[MeasuredImage]
    num_above: int
    def __init__(self, words: _Optional[str] = ..., drawings: _Optional[_Iterable[_Union[MeasuredImage, _Mapping]]] = ..., exemplars: _Optional[_Iterable[_Union[MeasuredImage, _Mapping]]] = ..., num_above: _Optional[int] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("id", "name", "tenant", "role", "created_at_s", "revoked_at_s")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_S_FIELD_NUMBER: _ClassVar[int]
    REVOKED_AT_S_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    tenant: str
    role: Role
    created_at_s: float
    revoked_at_s: float
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., tenant: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., created_at_s: _Optional[float] = ..., revoked_at_s: _Optional[float] = ...) -> None: ...

class CreateTokenRequest(_message.Message):
    __slots__ = ("context", "name", "tenant", "role")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    name: str
    tenant: str
    role: Role
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., name: _Optional[str] = ..., tenant: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ...) -> None: ...

class CreateTokenResponse(_message.Message):
    __slots__ = ("token", "secret")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    token: Token
    secret: str
    def __init__(self, token: _Optional[_Union[Token, _Mapping]] = ..., secret: _Optional[str] = ...) -> None: ...

class ListTokensRequest(_message.Message):
    __slots__ = ("context",)
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ...) -> None: ...

class ListTokensResponse(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    def __init__(self, tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ...) -> None: ...

class RevokeTokenRequest(_message.Message):
    __slots__ = ("context", "token_id")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    token_id: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., token_id: _Optional[str] = ...) -> None: ...

class RevokeTokenResponse(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: Token
    def __init__(self, token: _Optional[_Union[Token, _Mapping]] = ...) -> None: ...
