"""`webdataset:`: tar shards, on this machine, in a bucket or on a web server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from dnd.buckets import is_url, open_file, read_range
from dnd.errors import BadImage, InvalidInput, NotFound
from dnd.images import MAX_BYTES
from dnd_services.activations.sources.base import Entry, SourceFile
from dnd_services.activations.sources.shards import check_unchanged, list_shards, split_part
from dnd_services.activations.sources.tars import TarReader

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_OTHER_IMAGES = (".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jp2", ".ppm")


class WebDataset:
    """Images in tar shards: members whose names end like an image, or in the field behind "#".

    All else in a shard (captions, classes, JSON) is not looked at. A shard is read once from start
    to end; an image is found again by its place in it.
    """

    def list_files(self, location: str) -> Iterator[SourceFile]:
        return list_shards(location, (".tar",))

    def list_entries(self, file: SourceFile) -> Iterator[Entry]:
        shard, field = split_part(file.key)
        suffixes = ("." + field.lower(),) if field else SUFFIXES + _OTHER_IMAGES
        others: Counter[str] = Counter()
        num_images = 0
        with open_file(shard) as opened:
            for member in TarReader(opened, shard, MAX_BYTES).read_members(suffixes):
                name = member.name.rpartition("/")[2].lower()
                if name.startswith("."):
                    continue
                ending = name.partition(".")[2]
                if ending != field.lower() if field else not name.endswith(suffixes):
                    others[f".{ending}"] += 1
                    continue
                num_images += 1
                key = f"{shard}#{member.start}+{member.size}"
                if member.data is None:
                    error = f"The file has {member.size} bytes: expected at most {MAX_BYTES}."
                    yield Entry(key, error=error)
                else:
                    yield Entry(key, member.data, keep=is_url(shard))
        check_unchanged(file, shard)
        if not num_images:
            found = ", ".join(name for name, _ in others.most_common(10)) or "none"
            raise InvalidInput(
                f"{shard} has no member that ends in {' or '.join(suffixes[:4])}. Endings that it "
                f"has: {found}."
            )

    def read(self, key: str) -> bytes:
        shard, _, place = key.rpartition("#")
        start, _, size = place.partition("+")
        try:
            return read_range(shard, int(start), int(size))
        except NotFound as error:
            raise BadImage(error.message) from None
