"""`imagefolder:`: every file below a folder is an image."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from dnd.errors import BadImage, UnknownName
from dnd.images import MAX_BYTES
from dnd_services.activations.sources.base import Entry, SourceFile


class ImageFolder:
    """Every file below a folder. Hidden ones are not looked at, links are not followed."""

    def list_files(self, location: str) -> Iterator[SourceFile]:
        root = Path(location).expanduser()
        if not root.is_dir():
            raise UnknownName(f"There is no folder {location!r} to take images from.")
        root = root.resolve()
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(name for name in files if not name.startswith(".")):
                path = os.path.join(folder, name)
                error = ""
                try:
                    status = os.lstat(path)
                except FileNotFoundError:  # deleted in this very moment
                    continue
                if not stat.S_ISREG(status.st_mode):
                    error = "A link or special file: expected a regular file."
                elif status.st_size > MAX_BYTES:
                    error = f"The file has {status.st_size} bytes: expected at most {MAX_BYTES}."
                yield SourceFile(path, f"{status.st_size} {status.st_mtime_ns}", error)

    def list_entries(self, file: SourceFile) -> Iterator[Entry]:
        yield Entry(file.key, error=file.error)

    def read(self, key: str) -> bytes:
        try:
            with open(key, "rb") as file:
                return file.read(MAX_BYTES + 1)
        except OSError as error:
            raise BadImage(f"The file cannot be read: {error.strerror}.") from None
