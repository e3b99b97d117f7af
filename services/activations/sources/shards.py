"""Shards: large files with many images each, here or in a bucket, named by one location.

A location is a file, a folder (or a prefix of a bucket that ends in "/"), or a pattern: braces
count and choose as in a shell ("{000..099}", "{train,val}"), "*" stands in the names of files.
Behind "#" it may say which part of a shard is the image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from dnd.buckets import FileStatus, is_url, list_files, stat_file
from dnd.errors import InvalidInput, NotFound, UnknownName
from dnd_services.activations.sources.base import SourceFile

MAX_SHARDS = 1_000_000

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def split_part(location: str) -> tuple[str, str]:
    """Where the shards are, and what stands behind "#": "" for nothing."""
    shards, _, part = location.partition("#")
    return shards, part


def list_shards(location: str, suffixes: tuple[str, ...]) -> Iterator[SourceFile]:
    """The shards that a location names, in its order; keys carry its part with them.

    Args:
        location: As above.
        suffixes: Of the shards in a folder; a file that is named may be called anything.

    Raises:
        UnknownName: One of them is not there, or none is.
        InvalidInput: The pattern is not understood.
    """
    shards, part = split_part(location)
    for one in expand_braces(shards):
        try:
            for path, status in _find(one, suffixes):
                yield SourceFile(f"{path}#{part}" if part else path, status.stamp)
        except NotFound as error:
            raise UnknownName(error.message) from None


def check_unchanged(file: SourceFile, shard: str) -> None:
    """Raises InvalidInput if a shard is no longer the one that was listed."""
    if stat_file(shard).stamp != file.stamp:
        raise InvalidInput(f"{shard} has changed while it was read: try again when it is complete.")


def expand_braces(text: str) -> list[str]:
    """ "a{0..1}{x,y}" as "a0x", "a0y", "a1x", "a1y"; numbers keep their leading zeros.

    Raises:
        InvalidInput: A range that counts down, braces without a choice, or far too many names.
    """
    found = _BRACES.search(text)
    if found is None:
        if "{" in text or "}" in text:
            raise InvalidInput(f"{text!r}: a brace is open: expected {{000..099}} or {{a,b}}.")
        return [text]
    inside = found.group(1)
    numbers = _RANGE.fullmatch(inside)
    if numbers:
        first, last = numbers.groups()
        num = int(last) - int(first) + 1
        if not 1 <= num <= MAX_SHARDS:
            raise InvalidInput(f"{text!r}: {{{inside}}} counts {num} shards: expected 1 or more.")
        width = len(first) if first.startswith("0") else 0
        choices = [f"{number:0{width}}" for number in range(int(first), int(last) + 1)]
    else:
        choices = inside.split(",")
        if len(choices) < 2:
            raise InvalidInput(f"{text!r}: {{{inside}}}: expected {{000..099}} or {{a,b}}.")
    tails = expand_braces(text[found.end() :])
    if len(choices) * len(tails) > MAX_SHARDS:
        raise InvalidInput(f"{text!r} names more than {MAX_SHARDS} shards.")
    return [text[: found.start()] + choice + tail for choice in choices for tail in tails]


def _find(location: str, suffixes: tuple[str, ...]) -> list[tuple[str, FileStatus]]:
    """The files of one location without braces."""
    folder, _, name = location.rpartition("/")
    if "*" in name:
        pattern = re.compile(".*".join(map(re.escape, name.split("*"))), re.DOTALL)
        listed = list_files(f"{folder}/")
        found = [one for one in listed if pattern.fullmatch(_name_of(one[0]))]
    elif location.endswith("/") or (not is_url(location) and os.path.isdir(location)):
        listed = list_files(location)
        found = [one for one in listed if _name_of(one[0]).lower().endswith(suffixes)]
        found = [one for one in found if not _name_of(one[0]).startswith(".")]
    else:
        return [(location, stat_file(location))]
    if not found:
        raise NotFound(f"There is no {' or '.join(suffixes)} file at {location!r}.")
    return found


def _name_of(path: str) -> str:
    return path.rpartition("/")[2]
