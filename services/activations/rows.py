""".npy matrices that are written row by row and turned on their side, with little memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

HEADER_BYTES = 128
_BLOCK_BYTES = 8 * 2**20


class RowFile:
    """A .npy file (rows, columns) that grows by appending.

    Args:
        path: Written to; the header is completed by `finish`.
        dtype: Of its numbers.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike = np.float16) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        self._file = path.open("wb")
        self._file.write(bytes(HEADER_BYTES))
        self._num_rows = 0
        self._num_columns = 0

    def append(self, rows: np.ndarray) -> None:
        """Adds rows (rows, columns)."""
        self._num_rows += len(rows)
        self._num_columns = rows.shape[1]
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)

    def finish(self) -> Path:
        """Completes and closes the file."""
        self._file.seek(0)
        self._file.write(npy_header((self._num_rows, self._num_columns), self._dtype))
        self._file.close()
        return self._path


def npy_header(shape: tuple[int, int], dtype: npt.DTypeLike = np.float16) -> bytes:
    """The header of a .npy file of this shape, always 128 bytes (format version 1.0)."""
    text = f"{{'descr': {np.dtype(dtype).str!r}, 'fortran_order': False, 'shape': {shape}, }}"
    body = text.ljust(HEADER_BYTES - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body.encode("latin1")


def write_columns(
    path: Path, parts: Sequence[Callable[[], np.ndarray]], num_rows: int, num_columns: int
) -> Path:
    """Writes the matrix of all parts, one below the other, turned on its side: a row per column.

    A unit's activations then lie in one piece. Parts are mapped block by block, and let go of.

    Args:
        path: Written to, float16 (columns, rows).
        parts: Each opens a float16 matrix (rows of the part, columns) as a memory map.
        num_rows: Of all parts together.
        num_columns: Of each part.
    """
    block = max(1, _BLOCK_BYTES // max(1, num_columns * 2))
    with path.open("wb") as file:
        file.write(npy_header((num_columns, num_rows)))
        file.truncate(HEADER_BYTES + num_columns * num_rows * 2)
        done = 0
        for part in parts:
            for start in range(0, len(part()), block):
                turned = np.ascontiguousarray(part()[start : start + block].T)
                for column, values in enumerate(turned):
                    file.seek(HEADER_BYTES + 2 * (column * num_rows + done))
                    file.write(values.data)
                done += turned.shape[1]
    return path
