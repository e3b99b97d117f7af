from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_INTERACTIVE: _ClassVar[Priority]
    PRIORITY_BATCH: _ClassVar[Priority]

class CandidateOrigin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANDIDATE_ORIGIN_UNSPECIFIED: _ClassVar[CandidateOrigin]
    CANDIDATE_ORIGIN_SUMMARY: _ClassVar[CandidateOrigin]
    CANDIDATE_ORIGIN_BACKGROUND: _ClassVar[CandidateOrigin]
    CANDIDATE_ORIGIN_CAPTION_PHRASE: _ClassVar[CandidateOrigin]
    CANDIDATE_ORIGIN_CONCEPT_SET: _ClassVar[CandidateOrigin]
    CANDIDATE_ORIGIN_CAPTION: _ClassVar[CandidateOrigin]
    CANDIDATE_ORIGIN_VISION_LANGUAGE: _ClassVar[CandidateOrigin]

class UnitActivity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNIT_ACTIVITY_UNSPECIFIED: _ClassVar[UnitActivity]
    UNIT_ACTIVITY_LIVE: _ClassVar[UnitActivity]
    UNIT_ACTIVITY_DEAD: _ClassVar[UnitActivity]
    UNIT_ACTIVITY_TIED: _ClassVar[UnitActivity]
    UNIT_ACTIVITY_SPARSE: _ClassVar[UnitActivity]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_INTERACTIVE: Priority
PRIORITY_BATCH: Priority
CANDIDATE_ORIGIN_UNSPECIFIED: CandidateOrigin
CANDIDATE_ORIGIN_SUMMARY: CandidateOrigin
CANDIDATE_ORIGIN_BACKGROUND: CandidateOrigin
CANDIDATE_ORIGIN_CAPTION_PHRASE: CandidateOrigin
CANDIDATE_ORIGIN_CONCEPT_SET: CandidateOrigin
CANDIDATE_ORIGIN_CAPTION: CandidateOrigin
CANDIDATE_ORIGIN_VISION_LANGUAGE: CandidateOrigin
UNIT_ACTIVITY_UNSPECIFIED: UnitActivity
UNIT_ACTIVITY_LIVE: UnitActivity
UNIT_ACTIVITY_DEAD: UnitActivity
UNIT_ACTIVITY_TIED: UnitActivity
UNIT_ACTIVITY_SPARSE: UnitActivity

class RequestContext(_message.Message):
    __slots__ = ("tenant", "job", "priority", "trace_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    job: str
    priority: Priority
    trace_id: str
    def __init__(self, tenant: _Optional[str] = ..., job: _Optional[str] = ..., priority: _Optional[_Union[Priority, str]] = ..., trace_id: _Optional[str] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("ref", "data")
    REF_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ref: str
    data: bytes
    def __init__(self, ref: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x0", "y0", "x1", "y1")
    X0_FIELD_NUMBER: _ClassVar[int]
    Y0_FIELD_NUMBER: _ClassVar[int]
    X1_FIELD_NUMBER: _ClassVar[int]
    Y1_FIELD_NUMBER: _ClassVar[int]
    x0: int
    y0: int
    x1: int
    y1: int
    def __init__(self, x0: _Optional[int] = ..., y0: _Optional[int] = ..., x1: _Optional[int] = ..., y1: _Optional[int] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("code", "reason", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "digest", "architecture", "dtype", "device", "fixed_batch")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    FIXED_BATCH_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    architecture: str
    dtype: str
    device: str
    fixed_batch: int
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., architecture: _Optional[str] = ..., dtype: _Optional[str] = ..., device: _Optional[str] = ..., fixed_batch: _Optional[int] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("text", "origin")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    text: str
    origin: CandidateOrigin
    def __init__(self, text: _Optional[str] = ..., origin: _Optional[_Union[CandidateOrigin, str]] = ...) -> None: ...
