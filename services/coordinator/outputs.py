"""What stages give, as JSON artifacts: one way to write values of `dnd.types`, one to read them.

What a task gives for many units is kept together: an artifact of one value a line, a *pack*. The
reference of a line is that of its pack and its number, "sha256:…#3".
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types as python_types
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from dnd.artifacts import ArtifactStore

T = TypeVar("T")
_Reader: TypeAlias = "Callable[[Any], Any] | None"

PACK_SIZE = 64
"""Values of a pack at most: who wants one reads them all."""


def save(artifacts: ArtifactStore, value: Any) -> str:
    """Stores a dataclass and returns its reference; equal values have the same one.

    Raises:
        StorageFull: The disk is full.
    """
    return artifacts.put_bytes(_ENCODER.encode(value).encode())


def save_all(artifacts: ArtifactStore, values: Sequence[Any]) -> list[str]:
    """Stores dataclasses in packs and returns the reference of each, in order.

    Raises:
        StorageFull: The disk is full.
    """
    refs: list[str] = []
    for start in range(0, len(values), PACK_SIZE):
        lines = [_ENCODER.encode(value) for value in values[start : start + PACK_SIZE]]
        pack = artifacts.put_bytes("\n".join(lines).encode())
        refs += [f"{pack}#{number}" for number in range(len(lines))]
    return refs


def load(artifacts: ArtifactStore, ref: str, cls: type[T]) -> T:
    """The inverse of `save` and `save_all`.

    Raises:
        NotFound: The store does not have it.
    """
    pack, _, number = ref.partition("#")
    text = _lines(artifacts, pack)[int(number)] if number else artifacts.get_bytes(ref)
    hint: Any = cls
    read = _reader(hint)
    value: T = read(json.loads(text)) if read else json.loads(text)
    return value


def artifact_of(ref: str) -> str:
    """The reference of the artifact that an output lies in."""
    return ref.partition("#")[0]


@functools.lru_cache(maxsize=32)
def _lines(artifacts: ArtifactStore, pack: str) -> list[bytes]:
    """The lines of a pack: units that come one after the other lie in the same one."""
    return artifacts.get_bytes(pack).split(b"\n")


def _plain(value: Any) -> Any:
    """What the encoder does not know: enums and dataclasses."""
    if isinstance(value, Enum):
        return value.value
    cls: Any = type(value)
    return {name: getattr(value, name) for name in _names(cls)}


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain
)


@functools.cache
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


@functools.cache
def _reader(hint: Any) -> _Reader:
    """Makes a value of type `hint` out of its JSON; None where the JSON is the value."""
    if get_origin(hint) in (Union, python_types.UnionType):
        (hint,) = [arg for arg in get_args(hint) if arg is not type(None)]
        inner = _reader(hint)
        return inner and (lambda value: None if value is None else inner(value))
    if get_origin(hint) is tuple:
        item = _reader(get_args(hint)[0])
        return (lambda value: tuple(map(item, value))) if item else tuple
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _dataclass_reader(hint)
    return None


def _dataclass_reader(cls: type) -> Callable[[Any], Any]:
    hints = get_type_hints(cls)
    readers: dict[str, _Reader] = {}

    def read(value: dict[str, Any]) -> Any:
        if not readers:  # only now: a class may have fields of its own type
            readers.update({name: _reader(hints[name]) for name in _names(cls)})
        return cls(**{n: one(item) if (one := readers[n]) else item for n, item in value.items()})

    return read
