"""The artifact store: images and arrays under the digest of their bytes, written once.

A reference is "sha256:" and 64 hexadecimal digits. Beside the contents the store keeps names: a
stage's key pointing to a reference, so that a replica finds what another one has computed. Storage
is reached through obstore; today a local folder.
"""

from __future__ import annotations

import errno
import hashlib
import io
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import obstore
from obstore.store import LocalStore

from dnd.errors import BadSetting, DndError, InvalidInput, NotFound, StorageFull, Unavailable

_REF = re.compile(r"sha256:[0-9a-f]{64}")
_FULL = ("No space left", "os error 28", "Disk quota exceeded", "os error 122", "os error 27")


def reference_of(data: bytes) -> str:
    """The reference under which a store keeps `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class ArtifactStore:
    """A content-addressed store.

    Args:
        root: A local folder; it is created if its parent exists.

    Raises:
        BadSetting: `root` is not a folder that can be used.
    """

    def __init__(self, root: str | Path) -> None:
        if "://" in str(root):
            raise BadSetting(f"DND_ARTIFACTS = {str(root)!r}: expected a local folder.")
        self.root = Path(root).absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._store = LocalStore(self.root, mkdir=True)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StorageFull(f"The artifact store {self.root} is full: {error}.") from None
            raise BadSetting(
                f"DND_ARTIFACTS = {str(root)!r}: not a folder to write to: {error}."
            ) from None

    def put_bytes(self, data: bytes) -> str:
        """Stores `data` and returns its reference; storing the same again costs nothing.

        Raises:
            StorageFull: The disk is full.
        """
        ref = reference_of(data)
        if not self._path(ref).exists():
            self._put(self._name(ref), data)
        return ref

    def get_bytes(self, ref: str) -> bytes:
        """The bytes behind `ref`.

        Raises:
            InvalidInput: `ref` is no reference.
            NotFound: The store does not have it.
        """
        return self._get(self._name(ref), ref)

    def __contains__(self, ref: str) -> bool:
        return self._path(ref).exists()

    def put_array(self, array: np.ndarray) -> str:
        """Stores an array as .npy and returns its reference."""
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        return self.put_bytes(buffer.getvalue())

    def get_array(self, ref: str) -> np.ndarray:
        """The array behind `ref`, memory-mapped: what is not read stays on disk."""
        path = self._path(ref)
        if not path.exists():
            raise NotFound(f"The artifact store has no {ref}.")
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array

    def put_file(self, path: Path) -> str:
        """Moves a finished file into the store, never wholly in memory; returns its reference."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        ref = "sha256:" + digest.hexdigest()
        target = self._path(ref)
        if target.exists():
            path.unlink()
            return ref
        with _storage_errors(self.root):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.replace(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._put(self._name(ref), path.read_bytes())
                path.unlink()
        return ref

    @contextmanager
    def drafts(self) -> Iterator[Path]:
        """A folder on the store's own disk for files on their way to `put_file`; gone afterwards.

        Raises:
            StorageFull: The disk fills up while the block writes.
        """
        with _storage_errors(self.root):
            folder = Path(tempfile.mkdtemp(prefix="draft-", dir=self.root))
        try:
            yield folder
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise _full(self.root) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remember(self, key: str, ref: str) -> None:
        """Lets `key` point to `ref`."""
        self._put(self._key_name(key), ref.encode())

    def recall(self, key: str) -> str | None:
        """The reference that `key` points to; None without one, or if its contents are gone."""
        try:
            ref = self._get(self._key_name(key), key).decode()
        except NotFound:
            return None
        return ref if ref in self else None

    def _name(self, ref: str) -> str:
        if not _REF.fullmatch(ref):
            raise InvalidInput(
                f"{ref[:80]!r} is no artifact reference: expected 'sha256:' and 64 hex digits."
            )
        digest = ref.removeprefix("sha256:")
        return f"blobs/{digest[:2]}/{digest}"

    def _path(self, ref: str) -> Path:
        return self.root / self._name(ref)

    @staticmethod
    def _key_name(key: str) -> str:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return f"keys/{digest[:2]}/{digest}"

    def _put(self, name: str, data: bytes) -> None:
        with _storage_errors(self.root):
            obstore.put(self._store, name, data)

    def _get(self, name: str, shown: str) -> bytes:
        try:
            return bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            raise NotFound(f"The artifact store has no {shown}.") from None


@contextmanager
def _storage_errors(root: Path) -> Iterator[None]:
    """Turns the errors of the storage library into ours."""
    try:
        yield
    except DndError:
        raise
    except Exception as error:  # obstore raises its own classes without a common OSError
        text = str(error)
        if getattr(error, "errno", None) == errno.ENOSPC or any(mark in text for mark in _FULL):
            raise _full(root) from error
        raise Unavailable(f"The artifact store {root} cannot be written to: {text}") from error


def _full(root: Path) -> StorageFull:
    return StorageFull(
        f"The artifact store {root} is full: free some space; work then goes on by itself."
    )
