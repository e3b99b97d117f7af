"""Files by path or URL: s3://, gs:// and https:// through obstore, and one place for its errors.

Credentials, region and endpoint are the usual variables of each service, which the library reads
itself: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT (with
AWS_ALLOW_HTTP=true for one without TLS), AWS_SKIP_SIGNATURE=true for public buckets;
GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT_KEY, GOOGLE_SKIP_SIGNATURE.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import from_url

from dnd.errors import DndError, InvalidInput, NotFound, StorageRefused, Unavailable

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

SCHEMES = ("s3", "gs", "https", "http")
BLOCK_BYTES = 8 * 2**20
"""What one request of a file that is read in order brings."""

_RETRIES: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
_REQUEST_TIMEOUT = timedelta(minutes=2)  # with all that it brings: an array of a gigabyte
_STATUS = re.compile(r"status code: (\d{3})")
_REFUSED = ("169.254.169.254", "metadata.google", "incorrectly configured region", "credential")


@dataclass(frozen=True, order=True)
class FileStatus:
    """What is known of a file without reading it.

    Attributes:
        size: Bytes.
        stamp: Changes when the contents may have changed: size and time, or a bucket's tag.
    """

    size: int
    stamp: str


def is_url(location: str) -> bool:
    """Whether `location` is a URL, and not a path of this machine."""
    return "://" in location


def split_url(url: str) -> tuple[str, str]:
    """The bucket or server of a URL, and the path in it.

    Raises:
        InvalidInput: Not a URL of a kind that can be read, or it carries more than a path.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.netloc:
        forms = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise InvalidInput(f"{url!r} is no URL that can be read: expected one of {forms}.")
    if parts.query or parts.username or parts.password:
        raise InvalidInput(
            f"{parts.scheme}://{parts.hostname}…: a URL with a query or a password in it would "
            "come into logs: make the file readable without, or put it into a bucket."
        )
    return f"{parts.scheme}://{parts.netloc}", parts.path.strip("/")


def stat_file(location: str) -> FileStatus:
    """Size and stamp of a file.

    Raises:
        NotFound: There is no such file, or no such bucket.
        StorageRefused: The bucket or server refuses us.
        Unavailable: It cannot be reached.
    """
    if not is_url(location):
        with _local_errors(location):
            status = os.stat(location)
        if not stat.S_ISREG(status.st_mode):
            raise NotFound(f"{location!r} is no file.")
        return _local_status(status)
    root, path = split_url(location)
    with bucket_errors(location):
        return _remote_status(obstore.head(open_bucket(root), path))


def open_file(location: str) -> BinaryIO:
    """A file to be read in order, or at any place. Of a remote one, blocks are held, never all.

    Raises:
        NotFound: There is no such file, or no such bucket.
        StorageRefused: The bucket or server refuses us; also while it is read.
        Unavailable: It cannot be reached; also while it is read.
    """
    if not is_url(location):
        with _local_errors(location):
            return open(location, "rb", buffering=1 << 20)
    return io.BufferedReader(_RemoteFile(location, stat_file(location).size), BLOCK_BYTES)


def read_range(location: str, start: int, length: int) -> bytes:
    """At most `length` bytes of a file from `start` on, in one request; fewer at its end.

    Raises:
        NotFound: There is no such file any more.
        StorageRefused: The bucket or server refuses us.
        Unavailable: It cannot be reached.
    """
    if not is_url(location):
        with _local_errors(location), open(location, "rb", buffering=0) as file:
            return os.pread(file.fileno(), length, start)
    root, path = split_url(location)
    with bucket_errors(location):
        return bytes(obstore.get_range(open_bucket(root), path, start=start, length=length))


def list_files(folder: str) -> list[tuple[str, FileStatus]]:
    """The files in a folder or below a prefix that ends in "/", sorted; not those of subfolders.

    Raises:
        NotFound: There is no such folder or bucket.
        InvalidInput: Web servers do not list what they have.
        StorageRefused: The bucket refuses us.
        Unavailable: It cannot be reached.
    """
    if not is_url(folder):
        with _local_errors(folder), os.scandir(folder) as entries:
            return sorted((e.path, _local_status(e.stat())) for e in entries if e.is_file())
    root, path = split_url(folder)
    if not root.startswith(("s3:", "gs:")):
        raise InvalidInput(f"{folder!r}: a web server does not list its files: name each of them.")
    prefix = path + "/" if path else None
    with bucket_errors(folder):
        found = obstore.list_with_delimiter(open_bucket(root), prefix)["objects"]
    return sorted((f"{root}/{one['path']}", _remote_status(one)) for one in found)


def _local_status(status: os.stat_result) -> FileStatus:
    return FileStatus(status.st_size, f"{status.st_size} {status.st_mtime_ns}")


def _remote_status(found: ObjectMeta) -> FileStatus:
    # Lists of some servers give times with more digits, and tags without their quotes.
    tag = (found["e_tag"] or "").strip('"') or found["last_modified"].isoformat()
    return FileStatus(found["size"], f"{found['size']} {tag}")


@lru_cache(maxsize=64)
def open_bucket(root: str) -> ObjectStore:
    """The store behind "s3://bucket", "gs://bucket" or "https://host", kept for its connections."""
    with bucket_errors(root):
        # Options given here take the place of these variables.
        told = [os.environ.get(f"{one}_ALLOW_HTTP", "") for one in ("AWS", "GOOGLE")]
        plain = root.startswith("http:") or "true" in map(str.lower, told)
        options: ClientConfig = {"allow_http": plain, "timeout": _REQUEST_TIMEOUT}
        return from_url(root, retry_config=_RETRIES, client_options=options)


class _RemoteFile(io.RawIOBase):
    """A file behind a URL, each read a request of its own."""

    def __init__(self, location: str, size: int) -> None:
        self._location = location
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        data = read_range(self._location, self._position, length)
        if len(data) != length:
            raise Unavailable(f"{self._location} has changed while it was read: try again.")
        buffer[:length] = data
        self._position += length
        return length


@contextmanager
def bucket_errors(name: str) -> Iterator[None]:
    """Turns the errors of the library into ours; `name` is what was asked for."""
    try:
        yield
    except DndError:
        raise
    except FileNotFoundError as error:
        what = "bucket" if "NoSuchBucket" in str(error) else "file"
        raise NotFound(f"There is no {name}: no such {what}.") from None
    except (BaseError, ValueError, OSError) as error:
        raise _explain(name, error) from error


def _explain(name: str, error: Exception) -> DndError:
    text = str(error)
    detail = text.partition("\n")[0]  # below that, what the library knows of its own insides
    found = _STATUS.search(text)
    status = found.group(1) if found else ""
    if (
        isinstance(error, (PermissionDeniedError, UnauthenticatedError))
        or status in ("401", "403")
        or any(mark in text.partition("Debug source")[0] for mark in _REFUSED)
    ):
        return StorageRefused(
            f"{name} refuses access, or there are no credentials for it: check the variables "
            f"AWS_… or GOOGLE_… of this process, and its region. ({detail})"
        )
    if status == "404":
        return NotFound(f"There is no {name}: no such bucket.")
    if isinstance(error, NotSupportedError) or "non-partial response" in text:
        return InvalidInput(
            f"{name}: the server does not answer requests for a part of a file (range requests): "
            "put the file into a bucket, or on another server."
        )
    if isinstance(error, ValueError):
        return InvalidInput(f"{name} cannot be opened: {detail}")
    return Unavailable(f"{name} cannot be read: {detail}")


@contextmanager
def _local_errors(location: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"There is no {str(Path(location))!r}.") from None
    except OSError as error:
        raise Unavailable(f"{location!r} cannot be read: {error.strerror}.") from None
