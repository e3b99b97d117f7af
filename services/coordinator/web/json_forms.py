"""Messages as JSON: models of requests and answers, made from the protos, and both directions.

Fields have the names of the protos. An enum is the lower-case name of its value without the enum's
name, and null where it is unspecified; a string field "x_json" is the object "x"; bytes are base64.
The context of a request is not part of its JSON: who asks is known otherwise.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, Field, create_model

from dnd.convert import enum_prefix
from dnd.errors import InvalidInput

CONTEXT = "context"
_JSON = "_json"
_INTEGERS: dict[int, tuple[int, int]] = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)
_BODY = ConfigDict(extra="forbid", strict=True)
_QUERY = ConfigDict(extra="forbid")


def body_model(descriptor: Descriptor, without: Collection[str] = ()) -> type[BaseModel]:
    """The model of a message in a body, but for the fields `without`."""
    return _model(descriptor, frozenset({CONTEXT, *without}), is_body=True)


def query_model(descriptor: Descriptor, without: Collection[str] = ()) -> type[BaseModel]:
    """The model of a message whose fields are parameters of a query."""
    return _model(descriptor, frozenset({CONTEXT, *without}), is_body=False)


@functools.cache
def _model(descriptor: Descriptor, without: frozenset[str], is_body: bool) -> type[BaseModel]:
    fields: dict[str, Any] = {
        _json_name(field): _with_default(field)
        for field in descriptor.fields
        if field.name not in without
    }
    config = _BODY if is_body else _QUERY
    return create_model(descriptor.name, __config__=config, **fields)


def _with_default(field: FieldDescriptor) -> tuple[Any, Any]:
    """Type and default of a field."""
    if is_map(field):
        value = _single(field.message_type.fields_by_name["value"])
        return dict[str, value], Field(default_factory=dict)  # type: ignore[valid-type]
    single = _single(field)
    if field.is_repeated:
        return list[single], Field(default_factory=list)  # type: ignore[valid-type]
    if field.has_presence or field.enum_type is not None or field.name.endswith(_JSON):
        return single | None, None
    return single, "" if field.type == FieldDescriptor.TYPE_BYTES else field.default_value


def _single(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return Literal[tuple(_enum_names(field.enum_type).values())]
    if field.message_type is not None:
        return body_model(field.message_type)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return bool
    if field.type in _INTEGERS:
        low, high = _INTEGERS[field.type]
        return Annotated[int, Field(ge=low, le=high)]
    if field.type in _FLOATS:
        return Annotated[float, Field(allow_inf_nan=False)]
    if field.name.endswith(_JSON):
        return dict[str, Any]
    if field.type == FieldDescriptor.TYPE_BYTES:
        return Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
    return str


def to_plain(message: Message) -> dict[str, Any]:
    """A message as plain values that JSON can carry; every field of it is there."""
    found: dict[str, Any] = {}
    for field in fields_of(message):
        value = getattr(message, field.name)
        if field.name == CONTEXT:
            continue
        if is_map(field):
            found[field.name] = dict(value)
        elif field.is_repeated:
            found[field.name] = [_plain(field, one) for one in value]
        elif field.has_presence and not message.HasField(field.name):
            found[field.name] = None
        elif field.name.endswith(_JSON):
            found[_json_name(field)] = json.loads(value) if value else None
        else:
            found[field.name] = _plain(field, value)
    return found


def _plain(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        return _enum_names(field.enum_type).get(value)
    if field.message_type is not None:
        return to_plain(value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def fill(message: Message, values: Mapping[str, Any]) -> None:
    """Sets the fields of `message` that `values` has, which a model has validated.

    Raises:
        InvalidInput: A text is no Unicode, or bytes are no base64.
    """
    for field in fields_of(message):
        value = values.get(field.name)
        if value is None:
            continue
        try:
            _fill_field(message, field, value)
        except (TypeError, ValueError) as error:  # of protobuf: lone surrogates, for example
            raise InvalidInput(f"{field.name} = {str(value)[:40]!r}: {error}.") from None


def _fill_field(message: Message, field: FieldDescriptor, value: Any) -> None:
    target = getattr(message, field.name)
    if is_map(field):
        target.update(value)
    elif field.message_type is not None and field.is_repeated:
        for one in value:
            fill(target.add(), one)
    elif field.message_type is not None:
        target.SetInParent()
        fill(target, value)
    elif field.enum_type is not None:
        setattr(message, field.name, _enum_numbers(field.enum_type)[value])
    elif field.is_repeated:
        target.extend(value)
    elif field.type == FieldDescriptor.TYPE_BYTES:
        setattr(message, field.name, base64.b64decode(value, validate=True))
    else:
        setattr(message, field.name, value)


def fields_of(message: Message) -> list[FieldDescriptor]:
    """The fields of a message, in the order of the proto."""
    assert message.DESCRIPTOR is not None
    return list(message.DESCRIPTOR.fields)


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map: on the wire it is a repeated message."""
    kind = field.message_type
    return kind is not None and bool(kind.GetOptions().map_entry)


@functools.cache
def _enum_names(descriptor: EnumDescriptor) -> dict[int, str]:
    prefix = enum_prefix(descriptor) + "_"
    return {v.number: v.name.removeprefix(prefix).lower() for v in descriptor.values if v.number}


@functools.cache
def _enum_numbers(descriptor: EnumDescriptor) -> dict[str, int]:
    return {name: number for number, name in _enum_names(descriptor).items()}


def _json_name(field: FieldDescriptor) -> str:
    return str(field.name).removesuffix(_JSON)
