"""The only place where protobuf meets `dnd.types`.

Fields go by name. Three rules cover what has no direct counterpart: an `Image` message is a
reference string, a protobuf enum is the Python enum of the same member names, and a message whose
`error` field is set is a `DndError`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types as python_types
from collections.abc import Iterable
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from dnd.errors import (
    CODES,
    DndError,
    Internal,
    InvalidInput,
    VersionSkew,
    code_number,
    item_error_from_wire,
)
from dnd.types import OrError
from dnd.v1 import types_pb2

D = TypeVar("D")
M = TypeVar("M", bound=Message)


def to_message(value: Any, message_class: type[M]) -> M:
    """A message with the fields of the dataclass `value` that it has too."""
    message = message_class()
    for name, descriptor in _fields(message_class):
        item = getattr(value, name, None)
        if item is None:
            continue
        target = getattr(message, name)
        if descriptor.is_repeated:
            if descriptor.message_type is not None:
                target.extend(_message(part, descriptor) for part in item)
            else:
                target.extend(_scalar(part, descriptor) for part in item)
        elif descriptor.message_type is not None:
            target.CopyFrom(_message(item, descriptor))
        else:
            setattr(message, name, _scalar(item, descriptor))
    return message


def from_message(message: Message, cls: type[D]) -> D:
    """The dataclass `cls` with the fields of `message` that it has too.

    Raises:
        InvalidInput: An enum is unspecified, or an image carries bytes where a reference is needed.
    """
    hints = _hints(cls)  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, descriptor in _fields(type(message)):
        if name not in hints:
            continue
        hint = hints[name]
        if descriptor.is_repeated:
            (part, *_) = get_args(hint)
            values[name] = tuple(_value(item, descriptor, part) for item in getattr(message, name))
        elif descriptor.has_presence and not message.HasField(name):
            if _is_optional(hint):
                values[name] = None
        else:
            values[name] = _value(getattr(message, name), descriptor, _strip_optional(hint))
    return cls(**values)


def to_item(value: OrError[Any], message_class: type[M]) -> M:
    """The message of one item of a batch: its result, or its `error` field."""
    if isinstance(value, DndError):
        message = message_class()
        message.error.CopyFrom(error_message(value))  # type: ignore[attr-defined]
        return message
    return to_message(value, message_class)


def from_item(message: Message, cls: type[D]) -> OrError[D]:
    """The inverse of `to_item`."""
    return item_error(message) or from_message(message, cls)


def item_error(message: Message) -> DndError | None:
    """The error of one item of a batch, if it has one."""
    if not message.HasField("error"):
        return None
    error = message.error  # type: ignore[attr-defined]
    return item_error_from_wire(error.reason, error.code, error.message)


def error_message(error: BaseException) -> types_pb2.ItemError:
    """The wire form of an error of one item."""
    if not isinstance(error, DndError) or type(error) not in CODES:
        error = Internal(f"{type(error).__name__}; the server's log has the details.")
    return types_pb2.ItemError(
        code=code_number(error), reason=type(error).__name__, message=error.message
    )


def images(refs: Iterable[str]) -> list[types_pb2.Image]:
    """Image messages of references."""
    return [types_pb2.Image(ref=ref) for ref in refs]


@functools.cache
def enum_value(member: Enum, descriptor: EnumDescriptor) -> int:
    """The number of `member` in a protobuf enum with the same member names."""
    return int(descriptor.values_by_name[f"{enum_prefix(descriptor)}_{member.name}"].number)


def enum_member(number: int, descriptor: EnumDescriptor, cls: type[Enum]) -> Any:
    """The member of `cls` for a protobuf number.

    Raises:
        InvalidInput: The number is unspecified.
        VersionSkew: A later version has added it.
    """
    member = _members(descriptor, cls).get(number)
    if member is None:
        value = descriptor.values_by_number.get(number)
        if value is None:
            raise VersionSkew(
                f"{descriptor.name} is {number}, which this version does not know: whoever sent it "
                "is of a newer one. Upgrade this side, too."
            )
        name = value.name.removeprefix(enum_prefix(descriptor) + "_")
        choices = ", ".join(member.name for member in cls)
        raise InvalidInput(f"{descriptor.name} is {name}: expected one of {choices}.")
    return member


def field_enum(message_class: type[Message], name: str) -> EnumDescriptor:
    """The protobuf enum of a field."""
    found: EnumDescriptor = dict(_fields(message_class))[name].enum_type
    return found


def _fields(message_class: type[Message]) -> list[tuple[str, FieldDescriptor]]:
    assert message_class.DESCRIPTOR is not None
    return _fields_of(message_class.DESCRIPTOR)


@functools.cache
def _fields_of(descriptor: Any) -> list[tuple[str, FieldDescriptor]]:
    return list(descriptor.fields_by_name.items())


@functools.cache
def _members(descriptor: EnumDescriptor, cls: type[Enum]) -> dict[int, Enum]:
    """The members of `cls` that a protobuf enum has too, by number."""
    prefix = enum_prefix(descriptor) + "_"
    names = {value.name.removeprefix(prefix): value.number for value in descriptor.values}
    return {names[member.name]: member for member in cls if member.name in names}


def enum_prefix(descriptor: EnumDescriptor) -> str:
    """TOPK_COMPARE of ScoringFunction is SCORING_FUNCTION_TOPK_COMPARE on the wire."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", descriptor.name).upper()


def _message(value: Any, descriptor: FieldDescriptor) -> Message:
    kind = descriptor.message_type
    message_class: type[Message] = kind._concrete_class
    if message_class is types_pb2.Image:
        return types_pb2.Image(ref=value)
    return to_message(value, message_class)


def _scalar(value: Any, descriptor: FieldDescriptor) -> Any:
    if descriptor.enum_type is not None and isinstance(value, Enum):
        return enum_value(value, descriptor.enum_type)
    return value


def _value(value: Any, descriptor: FieldDescriptor, hint: Any) -> Any:
    if descriptor.enum_type is not None:
        return enum_member(value, descriptor.enum_type, hint)
    if isinstance(value, types_pb2.Image):
        if value.WhichOneof("source") == "data":
            raise InvalidInput("An image carries bytes where a reference is needed.")
        return value.ref
    if descriptor.message_type is not None:
        return from_message(value, hint)
    return value


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    assert dataclasses.is_dataclass(cls), cls
    return get_type_hints(cls)


def _is_optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, python_types.UnionType) and type(None) in get_args(hint)


def _strip_optional(hint: Any) -> Any:
    if _is_optional(hint):
        (inner,) = [arg for arg in get_args(hint) if arg is not type(None)]
        return inner
    return hint
