"""The artifact store in a bucket: s3://bucket/prefix or gs://bucket/prefix, through obstore.

Contents and names lie there as in a folder. Arrays are copied to this machine before they are
mapped, into a folder of the process's own (TMPDIR says where) that holds a bounded number of bytes.
What was written longer ago than `RENEW_S` is renewed by writing it again, since buckets know no
other way; what is younger counts as new.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import obstore

from dnd.artifacts import ArtifactStore, Stored, file_reference
from dnd.buckets import bucket_errors, is_url, open_bucket, split_url
from dnd.errors import BadSetting, InvalidInput, NotFound, StorageRefused

RENEW_S = 900.0
CACHE_BYTES = 8 * 2**30
_CHUNK_BYTES = 4 * 2**20


def open_artifacts(root: str) -> ArtifactStore:
    """The store at a local folder or in a bucket.

    Raises:
        BadSetting: `root` is neither, or not to be used.
        Unavailable: The bucket cannot be reached.
    """
    return BucketArtifacts(root) if is_url(root) else ArtifactStore(root)


class BucketArtifacts(ArtifactStore):
    """A content-addressed store in a bucket.

    Args:
        url: The bucket, and a prefix of ours in it.

    Raises:
        BadSetting: There is no such bucket, or it refuses us.
        Unavailable: It cannot be reached.
    """

    def __init__(self, url: str) -> None:
        try:
            bucket, prefix = split_url(url)
            if not bucket.startswith(("s3:", "gs:")):
                raise InvalidInput("expected a folder, s3://bucket/prefix or gs://bucket/prefix.")
            self._url = f"{bucket}/{prefix}".rstrip("/")
            self._bucket = open_bucket(self._url)
            with bucket_errors(self._url):
                obstore.list_with_delimiter(self._bucket, "keys/")
        except (InvalidInput, NotFound, StorageRefused) as error:
            raise BadSetting(f"DND_ARTIFACTS = {url!r}: {error.message}") from None
        self._copies = tempfile.TemporaryDirectory(prefix="dnd-artifacts-")
        super().__init__(self._copies.name)

    def __contains__(self, ref: str) -> bool:
        return self._status(self._name(ref)) is not None

    def get_array(self, ref: str) -> np.ndarray:
        if not self._path(ref).exists():
            self._copy_here(ref)
        return super().get_array(ref)

    def read_start(self, ref: str, num_bytes: int) -> bytes:
        with self._errors(ref):
            return bytes(next(iter(obstore.get(self._bucket, self._name(ref)).stream(1)), b""))[
                :num_bytes
            ]

    def remove(self, stored: Stored, before: float) -> bool:
        """As in a folder; contents that are renewed between asking and deleting are lost."""
        name = self._name(stored.name) if ":" in stored.name else stored.name
        found = self._status(name)
        if found is None or found.renewed_at >= before:
            return False
        self._discard(name)
        return True

    def _status(self, name: str) -> Stored | None:
        try:
            with self._errors(name):
                found = obstore.head(self._bucket, name)
        except NotFound:
            return None
        return Stored(name, found["size"], found["last_modified"].timestamp())

    def _list(self, kind: str) -> Iterator[Stored]:
        with self._errors(kind):
            for page in obstore.list(self._bucket, f"{kind}/"):
                for one in page:
                    yield Stored(one["path"], one["size"], one["last_modified"].timestamp())

    def _holds(self, ref: str, size: int) -> bool:
        found = self._status(self._name(ref))
        return found is not None and found.num_bytes == size and _is_new(found)

    def _renew(self, name: str) -> bool:
        found = self._status(name)
        if found is None or _is_new(found):
            return found is not None
        with self.drafts() as folder:
            copy = folder / "copy"
            try:
                self._fetch(name, copy)
            except NotFound:
                return False
            with self._errors(name):
                obstore.put(self._bucket, name, copy)
        return True

    def _put(self, name: str, data: bytes) -> None:
        with self._errors(name):
            obstore.put(self._bucket, name, data)

    def _put_file(self, name: str, path: Path) -> None:
        with self._errors(name):
            obstore.put(self._bucket, name, path)
        self._keep(name, path)

    def _get(self, name: str, shown: str) -> bytes:
        with self._errors(shown):
            return bytes(obstore.get(self._bucket, name).bytes())

    def _discard(self, name: str) -> None:
        super()._discard(name)
        with suppress(NotFound), self._errors(name):
            obstore.delete(self._bucket, name)

    def _fetch(self, name: str, path: Path) -> None:
        with self._errors(name), path.open("wb") as file:
            for chunk in obstore.get(self._bucket, name).stream(_CHUNK_BYTES):
                file.write(chunk)

    def _copy_here(self, ref: str) -> None:
        """Copies contents into the folder of this process, if they are what they were."""
        name = self._name(ref)
        with self.drafts() as folder:
            copy = folder / "copy"
            try:
                self._fetch(name, copy)
            except NotFound:
                raise NotFound(f"The artifact store has no {ref}.") from None
            if file_reference(copy) != ref:
                self._discard(name)
                raise NotFound(
                    f"The artifact store has {ref} in parts only: it must be made again."
                )
            self._keep(name, copy)

    def _keep(self, name: str, path: Path) -> None:
        """Moves a file among the copies; those not used for longest go. Who maps one keeps it."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        copies = []
        for copy in self.root.glob("blobs/*/*"):
            with suppress(FileNotFoundError):  # another thread has let go of it
                status = copy.stat()
                copies.append((max(status.st_atime, status.st_mtime), status.st_size, copy))
        num_bytes = sum(size for _, size, _ in copies)
        for _, size, copy in sorted(copies):
            if num_bytes <= CACHE_BYTES:
                break
            if copy != target:
                copy.unlink(missing_ok=True)
                num_bytes -= size

    @contextmanager
    def _errors(self, shown: str) -> Iterator[None]:
        """As `bucket_errors`; a bucket that has gone is everybody's trouble, not an item's."""
        try:
            with bucket_errors(self._url):
                yield
        except NotFound as error:
            if error.message.endswith("no such bucket."):
                raise StorageRefused(error.message) from None
            raise NotFound(f"The artifact store has no {shown}.") from None


def _is_new(stored: Stored) -> bool:
    return time.time() - stored.renewed_at < RENEW_S
