"""The artifact store: images and arrays under the digest of their bytes, written once.

A reference is "sha256:" and 64 hexadecimal digits. Beside the contents the store keeps names: a
stage's key pointing to a reference, so that a replica finds what another one has computed. Here it
is a local folder, written through obstore: a name appears when its contents are complete. The one
in a bucket is in `dnd.bucket_artifacts`, whose `open_artifacts` opens either.

What nobody refers to can be removed by whoever knows all references. Storing contents again, or
recalling them, makes them as new as if they had just been written, so that a caller may rely on a
reference that it was given for as long as new contents are spared.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import obstore
from obstore.store import LocalStore

from dnd.errors import BadSetting, DndError, InvalidInput, NotFound, StorageFull, Unavailable

_REF = re.compile(r"sha256:[0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FULL_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL = tuple(f"(os error {number})" for number in _FULL_NUMBERS)
_LEFT_S = 7 * 24 * 3600.0


def reference_of(data: bytes) -> str:
    """The reference under which a store keeps `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def file_reference(path: Path) -> str:
    """The reference under which a store keeps the contents of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return "sha256:" + digest.hexdigest()


@dataclass(frozen=True)
class Stored:
    """Something that a store has.

    Attributes:
        name: The reference of contents; of a name, what `remove` and `read_name` take.
        num_bytes: Of contents; 0 for a name.
        renewed_at: When it was last stored or recalled, seconds since 1970.
    """

    name: str
    num_bytes: int
    renewed_at: float


class ArtifactStore:
    """A content-addressed store.

    Args:
        root: A local folder; it is created if its parent exists.

    Raises:
        BadSetting: `root` is not a folder that can be used.
    """

    def __init__(self, root: str | Path) -> None:
        if "://" in str(root):
            raise BadSetting(f"{str(root)!r} is no local folder: open_artifacts opens buckets.")
        self.root = Path(root).absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._store = LocalStore(self.root, mkdir=True)
        except OSError as error:
            if error.errno in _FULL_NUMBERS:
                raise _full(self.root) from None
            raise BadSetting(
                f"DND_ARTIFACTS = {str(root)!r}: not a folder to write to: {error}."
            ) from None
        self._remove_left_drafts()

    def put_bytes(self, data: bytes) -> str:
        """Stores `data` and returns its reference; storing the same again costs nothing.

        Raises:
            StorageFull: The disk is full.
        """
        ref = reference_of(data)
        if not self._holds(ref, len(data)):
            self._put(self._name(ref), data)
        return ref

    def get_bytes(self, ref: str) -> bytes:
        """The bytes behind `ref`.

        Raises:
            InvalidInput: `ref` is no reference.
            NotFound: The store does not have it, or not any more as it was stored.
        """
        data = self._get(self._name(ref), ref)
        if reference_of(data) != ref:
            self._discard(self._name(ref))  # so that it is made again
            raise NotFound(f"The artifact store has {ref} in parts only: it must be made again.")
        return data

    def __contains__(self, ref: str) -> bool:
        return self._path(ref).exists()

    def put_array(self, array: np.ndarray) -> str:
        """Stores an array as .npy and returns its reference."""
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        return self.put_bytes(buffer.getvalue())

    def get_array(self, ref: str) -> np.ndarray:
        """The array behind `ref`, memory-mapped: what is not read stays on disk.

        Raises:
            InvalidInput: `ref` is no reference, or no array is behind it.
            NotFound: The store does not have it, or not any more as it was stored.
        """
        try:
            return np.lib.format.open_memmap(self._path(ref), mode="r")
        except FileNotFoundError:
            raise NotFound(f"The artifact store has no {ref}.") from None
        except ValueError:
            self.get_bytes(ref)  # NotFound if it is damaged
            raise InvalidInput(f"{ref} is no array.") from None

    def put_file(self, path: Path) -> str:
        """Moves a finished file into the store, never wholly in memory; returns its reference."""
        ref = file_reference(path)
        if self._holds(ref, path.stat().st_size):
            path.unlink()
        else:
            self._put_file(self._name(ref), path)
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
            if error.errno not in _FULL_NUMBERS:
                raise
            raise _full(self.root) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remember(self, key: str, ref: str) -> None:
        """Lets `key` point to `ref`."""
        self._put(self._key_name(key), ref.encode())

    def recall(self, key: str) -> str | None:
        """The reference that `key` points to; None without one, or if its contents are gone."""
        name = self._key_name(key)
        ref = self.read_name(name)
        # The contents first: a name that is still there afterwards has kept them.
        return ref if ref and self._renew(self._name(ref)) and self._renew(name) else None

    def renew(self, ref: str) -> bool:
        """Makes contents as new as if they had just been stored; false if they are not there."""
        return self._renew(self._name(ref))

    def list_contents(self) -> Iterator[Stored]:
        """All contents, in no order; what is stored meanwhile may be missing."""
        for stored in self._list("blobs"):
            digest = stored.name.rpartition("/")[2]
            yield Stored(f"sha256:{digest}", stored.num_bytes, stored.renewed_at)

    def list_names(self) -> Iterator[Stored]:
        """All names, in no order; what is remembered meanwhile may be missing."""
        for stored in self._list("keys"):
            yield Stored(stored.name, 0, stored.renewed_at)

    def read_name(self, name: str) -> str | None:
        """The reference that one of `list_names` points to; None if there is none."""
        try:
            ref = self._get(name, name).decode(errors="replace")
        except NotFound:
            return None
        return ref if _REF.fullmatch(ref) else None

    def read_start(self, ref: str, num_bytes: int) -> bytes:
        """The first bytes behind `ref`: what kind of contents they are.

        Raises:
            NotFound: The store does not have it.
        """
        with _storage_errors(self.root):
            try:
                with self._path(ref).open("rb") as file:
                    return file.read(num_bytes)
            except FileNotFoundError:
                raise NotFound(f"The artifact store has no {ref}.") from None

    def remove(self, stored: Stored, before: float) -> bool:
        """Removes contents or a name, unless they were renewed since `before`; whether it did."""
        path = self.root / (self._name(stored.name) if ":" in stored.name else stored.name)
        with self.drafts() as folder, _storage_errors(self.root):
            aside = folder / path.name
            try:
                if path.stat().st_mtime >= before:
                    return False
                # Aside first: from here on it is stored anew, not found and renewed.
                path.rename(aside)
                if aside.stat().st_mtime < before:
                    return True
                if not path.exists():
                    aside.rename(path)
            except FileNotFoundError:  # somebody else has removed it
                pass
        return False

    def _list(self, kind: str) -> Iterator[Stored]:
        """What is whole, without obstore's drafts; those that killed processes left are removed."""
        with _storage_errors(self.root):
            for folder in sorted((self.root / kind).glob("*")):
                with os.scandir(folder) as entries:
                    for entry in entries:
                        with suppress(FileNotFoundError):
                            status = entry.stat()
                            if _DIGEST.fullmatch(entry.name):
                                name = f"{kind}/{folder.name}/{entry.name}"
                                yield Stored(name, status.st_size, status.st_mtime)
                            elif status.st_mtime < time.time() - _LEFT_S:
                                os.unlink(entry)

    def _renew(self, name: str) -> bool:
        """Makes something as new as if it had just been stored; false if it is not there."""
        try:
            os.utime(self.root / name)
        except (FileNotFoundError, PermissionError):  # another user's: it is stored anew
            return False
        return True

    def _remove_left_drafts(self) -> None:
        """Removes what processes that were killed long ago have left half-written."""
        for folder in self.root.glob("draft-*"):
            with suppress(OSError):  # another process does the same
                newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
                if newest < time.time() - _LEFT_S:
                    shutil.rmtree(folder)

    def _holds(self, ref: str, size: int) -> bool:
        """Whether contents of this size are there: a crash of the machine may have cut them off.

        They are as new as if they had just been stored.
        """
        try:
            is_whole = self._path(ref).stat().st_size == size
        except FileNotFoundError:
            return False
        return is_whole and self._renew(self._name(ref))

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

    def _put_file(self, name: str, path: Path) -> None:
        target = self.root / name
        with _storage_errors(self.root):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.replace(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._put(name, path.read_bytes())
                path.unlink()

    def _discard(self, name: str) -> None:
        with suppress(OSError):
            (self.root / name).unlink()

    def _get(self, name: str, shown: str) -> bytes:
        # Read here: buffers of the library's own threads would stay with the C library's allocator.
        with _storage_errors(self.root):
            try:
                return (self.root / name).read_bytes()
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
        if getattr(error, "errno", None) in _FULL_NUMBERS or any(mark in text for mark in _FULL):
            raise _full(root) from error
        what = text.partition("\n")[0]  # below that, what the library knows of its own insides
        raise Unavailable(f"The artifact store {root} cannot be used: {what}") from error


def _full(root: Path) -> StorageFull:
    return StorageFull(
        f"The artifact store {root} is full: free some space; work then goes on by itself."
    )
