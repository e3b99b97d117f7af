from dnd.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetSynthesizerModelRequest(_message.Message):
    __slots__ = ("context",)
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ...) -> None: ...

class GetSynthesizerModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _types_pb2.ModelInfo
    def __init__(self, model: _Optional[_Union[_types_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class SynthesisSettings(_message.Message):
    __slots__ = ("num_steps", "guidance", "size", "scheduler")
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    num_steps: int
    guidance: float
    size: int
    scheduler: str
    def __init__(self, num_steps: _Optional[int] = ..., guidance: _Optional[float] = ..., size: _Optional[int] = ..., scheduler: _Optional[str] = ...) -> None: ...

class SynthesizeImagesRequest(_message.Message):
    __slots__ = ("context", "drawings", "settings", "model_digest")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    DRAWINGS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    context: _types_pb2.RequestContext
    drawings: _containers.RepeatedCompositeFieldContainer[Drawing]
    settings: SynthesisSettings
    model_digest: str
    def __init__(self, context: _Optional[_Union[_types_pb2.RequestContext, _Mapping]] = ..., drawings: _Optional[_Iterable[_Union[Drawing, _Mapping]]] = ..., settings: _Optional[_Union[SynthesisSettings, _Mapping]] = ..., model_digest: _Optional[str] = ...) -> None: ...

class Drawing(_message.Message):
    __slots__ = ("prompt", "seed")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    seed: int
    def __init__(self, prompt: _Optional[str] = ..., seed: _Optional[int] = ...) -> None: ...

class SynthesizeImagesResponse(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[SyntheticImage]
    def __init__(self, images: _Optional[_Iterable[_Union[SyntheticImage, _Mapping]]] = ...) -> None: ...

class SyntheticImage(_message.Message):
    __slots__ = ("image", "error")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    image: _types_pb2.Image
    error: _types_pb2.ItemError
    def __init__(self, image: _Optional[_Union[_types_pb2.Image, _Mapping]] = ..., error: _Optional[_Union[_types_pb2.ItemError, _Mapping]] = ...) -> None: ...
