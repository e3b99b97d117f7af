"""Good messages and bytes made bad: what fuzzing sends (hypothesis draws the changes)."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

M = TypeVar("M", bound=Message)

_MAX_CHANGES = 3
_SIGNED = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
_UNSIGNED = (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)
_REAL = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_NUMBERS = (0, 1, 2, 7, 2**31 - 1)
_REALS = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"))
_TEXTS = (
    "",
    " ",
    "\x00",
    "a" * 5000,
    "../../etc/passwd",
    "sha256:" + "0" * 64,
    "sha256:x",
    "№ 猫\n{}",
)


def fuzzing(num: int) -> settings:
    """Settings of a fuzzing test: `num` examples, the same each time; FUZZ times as many if set."""
    return settings(
        max_examples=num * int(os.environ.get("FUZZ") or 1),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def mutated(data: st.DataObject, message: M) -> M:
    """`message` with a few of its fields changed, wherever they lie in it."""
    for _ in range(data.draw(st.integers(1, _MAX_CHANGES))):
        _change(data, message)
    return message


def damaged(data: st.DataObject, good: bytes) -> bytes:
    """Bytes with some of them changed, cut out or put in twice."""
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, max(len(changed) - 1, 0)))
        how = data.draw(st.sampled_from(("set", "cut", "double")))
        length = data.draw(st.integers(1, 32))
        if how == "set":
            changed[place : place + length] = data.draw(st.binary(min_size=length, max_size=length))
        elif how == "cut":
            del changed[place : place + length]
        else:
            changed[place:place] = changed[place : place + length]
    return bytes(changed)


def _change(data: st.DataObject, message: Any) -> None:
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    field = data.draw(st.sampled_from(list(fields)))
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(message, field.name)[data.draw(st.sampled_from(_TEXTS[1:]))] = "1"
    elif field.is_repeated:
        _change_repeated(data, message, field)
    elif field.message_type is not None:
        if data.draw(st.booleans()):
            _change(data, getattr(message, field.name))
        else:
            message.ClearField(field.name)
    else:
        setattr(message, field.name, _value(data, field))


def _change_repeated(data: st.DataObject, message: Any, field: FieldDescriptor) -> None:
    values = getattr(message, field.name)
    how = data.draw(st.sampled_from(("empty", "double", "change", "add")))
    if how == "empty":
        message.ClearField(field.name)
    elif how == "double":
        values.extend(list(values))
    elif field.message_type is not None:
        _change(data, values[0] if how == "change" and len(values) else values.add())
    elif how == "change" and len(values):
        values[data.draw(st.integers(0, len(values) - 1))] = _value(data, field)
    else:
        values.append(_value(data, field))


def _value(data: st.DataObject, field: FieldDescriptor) -> Any:
    kind = field.cpp_type
    if kind in _SIGNED:
        return data.draw(st.sampled_from(_NUMBERS)) * data.draw(st.sampled_from((1, -1)))
    if kind in _UNSIGNED:
        return data.draw(st.sampled_from(_NUMBERS))
    if kind in _REAL:
        return data.draw(st.sampled_from(_REALS))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return data.draw(st.booleans())
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return data.draw(st.sampled_from((0, 1, 2, 3, 99)))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return data.draw(st.binary(max_size=64))
    return data.draw(st.sampled_from(_TEXTS))
