"""`parquet:`: images as bytes in a column, on this machine, in a bucket or on a web server."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from dnd.buckets import open_file
from dnd.errors import BadImage, BadSetting, DndError, InvalidInput, NotFound, suggest
from dnd.images import MAX_BYTES
from dnd_services.activations.sources.base import Entry, SourceFile
from dnd_services.activations.sources.shards import check_unchanged, list_shards, split_part

BATCH_ROWS = 16
_BUFFER_BYTES = 2**20
_USUAL_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")


class ParquetFiles:
    """Images in one column of Parquet files: bytes, or a struct with a field `bytes` (`datasets`).

    No other column is read: captions and labels stay unknown to every stage. Rows are read a few at
    a time. Reading one again means reading its row group up to it, so images are kept.
    """

    def list_files(self, location: str) -> Iterator[SourceFile]:
        return list_shards(location, (".parquet",))

    def list_entries(self, file: SourceFile) -> Iterator[Entry]:
        path, named = split_part(file.key)
        with _open(path) as parquet:
            column = find_column(parquet.schema_arrow, path, named)
            for group in range(parquet.num_row_groups):
                for row, data in enumerate(_read_group(parquet, group, column)):
                    key = f"{path}#{column}#{group}.{row}"
                    if data is None:
                        yield Entry(key, error=f"Its {column} is null: expected bytes of an image.")
                    elif len(data) > MAX_BYTES:
                        text = f"The image has {len(data)} bytes: expected at most {MAX_BYTES}."
                        yield Entry(key, error=text)
                    else:
                        yield Entry(key, data, keep=True)
        check_unchanged(file, path)

    def read(self, key: str) -> bytes:
        path, column, place = key.rsplit("#", 2)
        group, row = map(int, place.split("."))
        try:
            with _open(path) as parquet:
                find_column(parquet.schema_arrow, path, column)
                values = _read_group(parquet, group, column)
                if group < parquet.num_row_groups and (
                    data := next(islice(values, row, None), b"")
                ):
                    return data
        except (InvalidInput, NotFound) as error:
            raise BadImage(error.message) from None
        raise BadImage(f"{path} has no row {row} in row group {group} any more.")


def find_column(schema: Any, path: str, named: str) -> str:
    """The path of the column with the bytes of images, "image" or "image.bytes".

    Args:
        schema: A `pyarrow.Schema`.
        path: Of the file, for messages.
        named: What the operator calls it; "" for the only one there is, or the one called usually.

    Raises:
        InvalidInput: There is none, several, or not this one; the message names the columns.
    """
    columns = dict(_byte_columns(schema))
    there = ", ".join(f"{field.name} ({field.type})" for field in schema)[:1000]
    if named:
        if named in columns.values():
            return named
        if named in columns:
            return columns[named]
        if named in schema.names:
            raise InvalidInput(
                f"{path}: column {named!r} is {schema.field(named).type}: expected bytes of images "
                f"(binary). Columns: {there}."
            )
        raise InvalidInput(f"{path}: {suggest(named, schema.names, what='column')}")
    usual = [columns[name] for name in _USUAL_NAMES if name in columns]
    if len(columns) == 1 or usual:
        return usual[0] if usual else next(iter(columns.values()))
    if not columns:
        raise InvalidInput(
            f"{path} has no column with bytes of images (binary). Columns: {there or 'none'}."
        )
    raise InvalidInput(
        f"{path} has bytes in several columns, {', '.join(columns)}: name the one with images "
        f"behind '#', as in 'parquet:{path}#{next(iter(columns))}'."
    )


def _byte_columns(schema: Any) -> Iterator[tuple[str, str]]:
    """Name of each column that holds bytes, and the path of these in it."""
    for field in schema:
        if _is_bytes(field.type):
            yield field.name, field.name
        elif str(field.type).startswith("struct<"):
            for inner in field.type:
                if inner.name == "bytes" and _is_bytes(inner.type):
                    yield field.name, f"{field.name}.bytes"


def _is_bytes(kind: Any) -> bool:
    return str(kind) in ("binary", "large_binary", "binary_view")


def _read_group(parquet: Any, group: int, column: str) -> Iterator[bytes | None]:
    """The values of a row group's column, in order."""
    batches = parquet.iter_batches(
        BATCH_ROWS, row_groups=[group], columns=[column], use_threads=False
    )
    for batch in batches:
        values = batch.column(0)
        if column not in batch.schema.names:  # of a struct, its one field that was read
            (values,) = values.flatten()
        for value in values:
            yield value.as_py()


@contextmanager
def _open(path: str) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`.

    Raises:
        BadSetting: pyarrow is not installed.
        InvalidInput: The file is no Parquet, or damaged; also while it is read.
    """
    try:
        arrow = importlib.import_module("pyarrow")
        module = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise BadSetting(
            f"Probe sets of 'parquet:' need pyarrow, which cannot be imported ({error}): install "
            "the extra, pip install 'describe-and-dissect[parquet]'."
        ) from None
    with open_file(path) as file:
        try:
            # In a stream of small pieces: otherwise a whole column of a row group is in memory.
            with module.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as parquet:
                yield parquet
        except DndError:
            raise
        except (arrow.ArrowException, OSError) as error:
            detail = " ".join(str(error).split())[:200]
            raise InvalidInput(f"{path} is no Parquet file, or damaged: {detail}") from None
