"""What stages give, as JSON artifacts: one way to write a value of `dnd.types`, one to read it."""

from __future__ import annotations

import dataclasses
import functools
import json
import types as python_types
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from dnd.artifacts import ArtifactStore

T = TypeVar("T")


def save(artifacts: ArtifactStore, value: Any) -> str:
    """Stores a dataclass and returns its reference; equal values have the same one.

    Raises:
        StorageFull: The disk is full.
    """
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return artifacts.put_bytes(text.encode())


def load(artifacts: ArtifactStore, ref: str, cls: type[T]) -> T:
    """The inverse of `save`.

    Raises:
        NotFound: The store does not have it.
    """
    value: T = _typed(cls, json.loads(artifacts.get_bytes(ref)))
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _typed(hint: Any, value: Any) -> Any:
    if get_origin(hint) in (Union, python_types.UnionType):
        if value is None:
            return None
        (hint,) = [arg for arg in get_args(hint) if arg is not type(None)]
        return _typed(hint, value)
    if get_origin(hint) is tuple:
        item_hint = get_args(hint)[0]
        return tuple(_typed(item_hint, item) for item in value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = _hints(hint)
        return hint(**{name: _typed(hints[name], item) for name, item in value.items()})
    return value


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)
