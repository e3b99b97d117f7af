"""What a source of probe images is: files, the images in each, and reading one of them again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: an image, or an archive of many.

    Attributes:
        key: By which the source finds it.
        stamp: Changes when the contents may have changed (size and time of a file).
        error: Why it is no image, where that is known without reading it.
    """

    key: str
    stamp: str
    error: str = ""


@dataclass(frozen=True)
class Entry:
    """One image of a file.

    Attributes:
        key: By which the source reads it again, alone.
        data: The encoded image, where reading the file in order has brought it along.
        error: Why it is no image, where that is known without decoding it.
        keep: Reading it again costs a request or more: the artifact store keeps it at once.
    """

    key: str
    data: bytes | None = None
    error: str = ""
    keep: bool = False


class ProbeSource(Protocol):
    """A kind of place that images come from."""

    def list_files(self, location: str) -> Iterator[SourceFile]:
        """All files, in an order that depends on their keys only; their contents are not read."""

    def list_entries(self, file: SourceFile) -> Iterator[Entry]:
        """The images of a file, in their order in it; archives are read from start to end."""

    def read(self, key: str) -> bytes:
        """The encoded image behind the key of an entry."""
