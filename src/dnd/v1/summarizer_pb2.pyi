from dnd.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetSummarizerModelRequest(_message.Message):
    __slots__ = ("context",)
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ...) -> None: ...

class GetSummarizerModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _types_pb2.ModelInfo
    def __init__(self, model: _Optional[_Union[_types_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class ProposeSettings(_message.Message):
    __slots__ = ("prompt_set", "simplify", "num_summaries", "one_call", "temperature", "num_phrases", "max_candidates", "add_background", "merge_near_duplicates", "num_captions")
    PROMPT_SET_FIELD_NUMBER: _ClassVar[int]
    SIMPLIFY_FIELD_NUMBER: _ClassVar[int]
    NUM_SUMMARIES_FIELD_NUMBER: _ClassVar[int]
    ONE_CALL_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    NUM_PHRASES_FIELD_NUMBER: _ClassVar[int]
    MAX_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    ADD_BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    MERGE_NEAR_DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    NUM_CAPTIONS_FIELD_NUMBER: _ClassVar[int]
    prompt_set: str
    simplify: bool
    num_summaries: int
    one_call: bool
    temperature: float
    num_phrases: int
    max_candidates: int
    add_background: bool
    merge_near_duplicates: bool
    num_captions: int
    def __init__(self, prompt_set: _Optional[str] = ..., simplify: _Optional[bool] = ..., num_summaries: _Optional[int] = ..., one_call: _Optional[bool] = ..., temperature: _Optional[float] = ..., num_phrases: _Optional[int] = ..., max_candidates: _Optional[int] = ..., add_background: _Optional[bool] = ..., merge_near_duplicates: _Optional[bool] = ..., num_captions: _Optional[int] = ...) -> None: ...

class ProposeConceptsRequest(_message.Message):
    __slots__ = ("context", "units", "settings", "model_digest")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    units: _containers.RepeatedCompositeFieldContainer[UnitCaptions]
    settings: ProposeSettings
    model_digest: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., units: _Optional[_Iterable[_Union[UnitCaptions, _Mapping]]] = ..., settings: _Optional[_Union[ProposeSettings, _Mapping]] = ..., model_digest: _Optional[str] = ...) -> None: ...

class UnitCaptions(_message.Message):
    __slots__ = ("captions", "candidates", "seed", "contrast")
    CAPTIONS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    CONTRAST_FIELD_NUMBER: _ClassVar[int]
    captions: _containers.RepeatedScalarFieldContainer[str]
    candidates: _containers.RepeatedCompositeFieldContainer[_types_pb2.Candidate]
    seed: int
    contrast: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, captions: _Optional[_Iterable[str]] = ..., candidates: _Optional[_Iterable[_Union[_types_pb2.Candidate, _Mapping]]] = ..., seed: _Optional[int] = ..., contrast: _Optional[_Iterable[str]] = ...) -> None: ...

class ProposeConceptsResponse(_message.Message):
    __slots__ = ("proposals",)
    PROPOSALS_FIELD_NUMBER: _ClassVar[int]
    proposals: _containers.RepeatedCompositeFieldContainer[Proposal]
    def __init__(self, proposals: _Optional[_Iterable[_Union[Proposal, _Mapping]]] = ...) -> None: ...

class Proposal(_message.Message):
    __slots__ = ("candidates", "tokens", "error")
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    candidates: _containers.RepeatedCompositeFieldContainer[_types_pb2.Candidate]
    tokens: TokenUse
    error: _types_pb2.ItemError
    def __init__(self, candidates: _Optional[_Iterable[_Union[_types_pb2.Candidate, _Mapping]]] = ..., tokens: _Optional[_Union[TokenUse, _Mapping]] = ..., error: _Optional[_Union[_types_pb2.ItemError, _Mapping]] = ...) -> None: ...

class TokenUse(_message.Message):
    __slots__ = ("num_calls", "num_input_tokens", "num_output_tokens")
    NUM_CALLS_FIELD_NUMBER: _ClassVar[int]
    NUM_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    num_calls: int
    num_input_tokens: int
    num_output_tokens: int
    def __init__(self, num_calls: _Optional[int] = ..., num_input_tokens: _Optional[int] = ..., num_output_tokens: _Optional[int] = ...) -> None: ...
