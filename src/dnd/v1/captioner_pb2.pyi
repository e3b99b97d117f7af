from dnd.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetCaptionerModelRequest(_message.Message):
    __slots__ = ("context",)
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ...) -> None: ...

class GetCaptionerModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _types_pb2.ModelInfo
    def __init__(self, model: _Optional[_Union[_types_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class CaptionSettings(_message.Message):
    __slots__ = ("max_new_tokens", "min_length", "num_beams")
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MIN_LENGTH_FIELD_NUMBER: _ClassVar[int]
    NUM_BEAMS_FIELD_NUMBER: _ClassVar[int]
    max_new_tokens: int
    min_length: int
    num_beams: int
    def __init__(self, max_new_tokens: _Optional[int] = ..., min_length: _Optional[int] = ..., num_beams: _Optional[int] = ...) -> None: ...

class CaptionImagesRequest(_message.Message):
    __slots__ = ("context", "images", "settings", "model_digest", "num_labels")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUM_LABELS_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    images: _containers.RepeatedCompositeFieldContainer[_types_pb2.Image]
    settings: CaptionSettings
    model_digest: str
    num_labels: int
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., images: _Optional[_Iterable[_Union[_types_pb2.Image, _Mapping]]] = ..., settings: _Optional[_Union[CaptionSettings, _Mapping]] = ..., model_digest: _Optional[str] = ..., num_labels: _Optional[int] = ...) -> None: ...

class CaptionImagesResponse(_message.Message):
    __slots__ = ("captions",)
    CAPTIONS_FIELD_NUMBER: _ClassVar[int]
    captions: _containers.RepeatedCompositeFieldContainer[Caption]
    def __init__(self, captions: _Optional[_Iterable[_Union[Caption, _Mapping]]] = ...) -> None: ...

class Caption(_message.Message):
    __slots__ = ("text", "error", "labels")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    text: str
    error: _types_pb2.ItemError
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, text: _Optional[str] = ..., error: _Optional[_Union[_types_pb2.ItemError, _Mapping]] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...
