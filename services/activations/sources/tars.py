"""Reading a tar from start to end, with the place of every member, and without trusting it.

Python's `tarfile` ends quietly where an archive is cut off between two members, keeps every member
in memory, and reads headers of any length; here the first is an error and the others do not happen.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from dnd.errors import InvalidInput

BLOCK = 512
MAX_HEADER_BYTES = 2**20

_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_HEADERS = (*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_SKIP_BYTES = 2**20


@dataclass(frozen=True)
class Member:
    """A regular file in a tar.

    Attributes:
        name: Its path in the archive.
        start: Where its contents begin, bytes from the start of the archive.
        size: Of its contents, bytes.
        data: Its contents; None where they were not asked for.
    """

    name: str
    start: int
    size: int
    data: bytes | None


class TarReader:
    """The members of a tar, in order.

    Args:
        file: Read from its start on.
        name: Of the archive, for messages.
        max_bytes: Contents of larger members are skipped.
    """

    def __init__(self, file: BinaryIO, name: str, max_bytes: int) -> None:
        self._file = file
        self._name = name
        self._max_bytes = max_bytes
        self._position = 0
        self._num_members = 0

    def read_members(self, suffixes: tuple[str, ...]) -> Iterator[Member]:
        """Regular files; the contents of those whose name ends so and that are not too large.

        Raises:
            InvalidInput: It is no tar, compressed, damaged or cut off.
        """
        long_name, records = "", dict[str, str]()
        while (info := self._next_header()) is not None:
            if info.type in _HEADERS:
                text = self._read(self._header_size(info), "a header")
                self._skip_padding(info.size)
                if info.type == tarfile.GNUTYPE_LONGNAME:
                    long_name = text.rstrip(b"\0").decode("utf-8", "surrogateescape")
                elif info.type in _PAX:
                    records = self._parse_pax(text)
                continue
            if info.type == tarfile.GNUTYPE_SPARSE or any(
                k.startswith("GNU.sparse") for k in records
            ):
                raise InvalidInput(
                    f"{self._name} has sparse files in it: pack it without --sparse."
                )
            name = records.get("path") or long_name or info.name
            size = self._parse_size(records["size"]) if "size" in records else info.size
            long_name, records = "", {}
            if info.type in tarfile.REGULAR_TYPES:
                wanted = size <= self._max_bytes and name.lower().endswith(suffixes)
                start = self._position
                data = self._read(size, repr(name)) if wanted else None
                if data is None:
                    self._skip(size)
                yield Member(name, start, size, data)
            elif info.type not in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE):
                self._skip(size)  # links and folders have no contents, whatever size they state
            else:
                continue
            self._skip_padding(size)

    def _next_header(self) -> tarfile.TarInfo | None:
        """The next member's header; None at the mark that ends an archive."""
        block = self._file.read(BLOCK)
        if len(block) < BLOCK:
            raise (
                self._cut_off("there is no end-of-archive mark")
                if self._num_members
                else (InvalidInput(f"{self._name} is no tar archive: it has {len(block)} bytes."))
            )
        self._position += BLOCK
        if not any(block):
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if self._num_members:
                raise InvalidInput(
                    f"{self._name} is damaged behind {self._num_members} members, at byte "
                    f"{self._position - BLOCK}: {error}. Fetch or pack it again."
                ) from None
            for mark, kind in _COMPRESSED.items():
                if block.startswith(mark):
                    raise InvalidInput(
                        f"{self._name} is compressed ({kind}): images in it cannot be found by "
                        "their place. Decompress it; images hardly get smaller by that."
                    ) from None
            raise InvalidInput(f"{self._name} is no tar archive: {error}.") from None
        if info.size < 0:
            raise InvalidInput(f"{self._name} is damaged: a member has {info.size} bytes.")
        self._num_members += 1
        return info

    def _header_size(self, info: tarfile.TarInfo) -> int:
        if info.size > MAX_HEADER_BYTES:
            raise InvalidInput(
                f"{self._name}: a header has {info.size} bytes: expected at most "
                f"{MAX_HEADER_BYTES}. The archive is damaged."
            )
        return info.size

    def _parse_pax(self, text: bytes) -> dict[str, str]:
        """Records "25 path=…\\n" of an extended header; the number counts the whole record."""
        records: dict[str, str] = {}
        while text:
            length, space, _ = text.partition(b" ")
            if not space or not length.isdigit() or not len(length) + 1 < int(length) <= len(text):
                raise InvalidInput(f"{self._name} is damaged: an extended header makes no sense.")
            key, _, value = text[len(length) + 1 : int(length) - 1].partition(b"=")
            decoded = value.decode("utf-8", "surrogateescape")
            records[key.decode("utf-8", "surrogateescape")] = decoded
            text = text[int(length) :]
        return records

    def _parse_size(self, text: str) -> int:
        if not text.isascii() or not text.isdigit():
            raise InvalidInput(f"{self._name} is damaged: a member has {text[:40]!r} bytes.")
        return int(text)

    def _read(self, size: int, what: str) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise self._cut_off(f"{what} has {len(data)} of {size} bytes")
        self._position += size
        return data

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._read(min(size, _SKIP_BYTES), "a member's last part"))

    def _skip_padding(self, size: int) -> None:
        self._skip(-size % BLOCK)

    def _cut_off(self, detail: str) -> InvalidInput:
        return InvalidInput(
            f"{self._name} is cut off behind {self._num_members} members: {detail}. "
            "Fetch or pack it again."
        )
