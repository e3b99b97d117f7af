"""Probe sets: where images come from, and freezing them into a manifest.

Keys of images (paths, places in archives) stay within this service: all that others see of an image
is the digest of its bytes. What is written down of a set while it is read goes to disk as it comes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np

from dnd import keys
from dnd.artifacts import ArtifactStore, reference_of
from dnd.errors import (
    BadImage,
    EmptyProbeSet,
    FailedPrecondition,
    NotFound,
    Unavailable,
)
from dnd.images import decode_image
from dnd.manifest import DIGEST_BYTES, Manifest, build_manifest
from dnd.types import ProbeSet
from dnd_services.activations.registry import Spec
from dnd_services.activations.rows import RowFile
from dnd_services.activations.sources import SOURCES, Entry

log = logging.getLogger(__name__)

MAX_REASONS = 20
ENTRIES_AHEAD = 256
BYTES_AHEAD = 64 * 2**20
"""Images that are read and not yet decoded."""


def freeze_probe_set(
    specs: Sequence[Spec],
    judge_fraction: float,
    store: ArtifactStore,
    pool: Executor,
    stopping: threading.Event,
) -> ProbeSet:
    """Reads every image once and stores the manifest; an unchanged listing is not read again.

    Args:
        specs: Sources, united. Equal images count once.
        judge_fraction: Share of the judge half, 0..1.
        store: Where the manifest goes.
        pool: Reads and decodes.
        stopping: Set when the server shuts down.

    Raises:
        Unavailable: The server is shutting down.
        UnknownName: A source is not there.
        EmptyProbeSet: Not a single readable image, or none in the select half.
    """
    listing = _digest_listing(specs)
    scan_key = keys.stage_key("index", "scanned", listing)
    scan_ref = store.recall(scan_key)
    scan = json.loads(store.get_bytes(scan_ref)) if scan_ref else None
    if scan is None or not all(scan[name] in store for name in ("digests", "places", "ends")):
        scan = _scan(specs, store, pool, stopping)
        store.remember(scan_key, store.put_bytes(json.dumps(scan, sort_keys=True).encode()))
    manifest, positions = build_manifest(
        np.asarray(store.get_array(scan["digests"])), judge_fraction
    )
    num_select = len(manifest) - int(manifest.judge.sum())
    if not num_select:
        raise EmptyProbeSet(
            f"All {len(manifest)} images of the probe set fall into the judge half: give more "
            f"images, or a judge_fraction below {judge_fraction}."
        )
    manifest_ref = manifest.save(store)
    where = {"places": scan["places"], "ends": scan["ends"], "order": store.put_array(positions)}
    store.remember(_places_key(manifest_ref), store.put_bytes(json.dumps(where).encode()))
    return ProbeSet(
        manifest_ref,
        num_images=len(manifest),
        num_select=num_select,
        num_skipped=scan["num_skipped"],
        skipped_reasons=tuple(scan["reasons"]),
    )


class ProbeImages:
    """Reads the images of a frozen probe set, by number.

    Args:
        manifest_ref: Of `freeze_probe_set`.
        store: Where manifest and images lie; an image that is not there yet is put there.
    """

    def __init__(self, manifest_ref: str, store: ArtifactStore) -> None:
        self.manifest = Manifest.load(store, manifest_ref)
        self._store = store
        where_ref = store.recall(_places_key(manifest_ref))
        self._places = None if where_ref is None else _Places(store, where_ref)

    def read(self, number: int) -> bytes:
        """The encoded image at `number` in manifest order; it is in the store afterwards.

        Raises:
            FailedPrecondition: The file has gone or changed since the probe set was frozen.
        """
        (ref,) = self.manifest.refs([number])
        if self._store.renew(ref):  # the job relies on it from now on
            return self._store.get_bytes(ref)
        if self._places is None:
            raise NotFound(f"The artifact store has no {ref}, and nothing says where it came from.")
        scheme, _, key = self._places.of(number).partition(":")
        try:
            data = SOURCES[scheme].read(key)
        except BadImage as error:
            log.warning("image %d of the probe set, %s: %s", number, key, error.message)
            raise _changed(number) from None
        if reference_of(data) != ref:
            log.warning("image %d of the probe set has changed: %s", number, key)
            raise _changed(number)
        self._store.put_bytes(data)
        return data


class _Places:
    """Scheme and key of every image of a manifest, memory-mapped."""

    def __init__(self, store: ArtifactStore, ref: str) -> None:
        where = json.loads(store.get_bytes(ref))
        self._text = store.get_array(where["places"]).reshape(-1)
        self._ends = store.get_array(where["ends"]).reshape(-1)
        self._order = store.get_array(where["order"])

    def of(self, number: int) -> str:
        """ "scheme:key" of the image at `number` in manifest order."""
        position = int(self._order[number])
        start = int(self._ends[position - 1]) if position else 0
        return os.fsdecode(self._text[start : int(self._ends[position])].tobytes())


def _changed(number: int) -> FailedPrecondition:
    return FailedPrecondition(
        f"Image {number} of the probe set has gone or changed since the set was frozen: freeze it "
        "again (GetProbeSet) and start a new job."
    )


def _places_key(manifest_ref: str) -> str:
    return keys.stage_key("index", "placed", manifest_ref)


def _digest_listing(specs: Sequence[Spec]) -> str:
    digest = hashlib.sha256()
    for spec in sorted(specs, key=str):
        for file in SOURCES[spec.scheme].list_files(spec.location):
            line = f"{spec.scheme}:{file.key}\0{file.stamp}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _list_all(specs: Sequence[Spec]) -> Iterator[tuple[str, Entry]]:
    """Scheme and entry of every image in the sources, in the order of their files' names."""
    for spec in sorted(specs, key=str):
        source = SOURCES[spec.scheme]
        for file in source.list_files(spec.location):
            for entry in source.list_entries(file):
                yield spec.scheme, entry


def _scan(
    specs: Sequence[Spec], store: ArtifactStore, pool: Executor, stopping: threading.Event
) -> dict[str, Any]:
    """Reads and decodes every image: digests and places of the good, reasons of the bad."""
    reasons: list[str] = []
    num_skipped = num_seen = 0
    with store.drafts() as folder:
        good = _GoodImages(folder)
        for scheme, key, found in _examine_all(specs, store, pool, stopping):
            num_seen += 1
            if isinstance(found, bytes):
                good.add(found, f"{scheme}:{key}")
                continue
            num_skipped += 1
            log.warning("skipped %s: %s", key, found.message)
            if len(reasons) < MAX_REASONS:
                reasons.append(f"Image {num_seen} in sorted order: {found.message}")
        if num_seen == num_skipped:
            raise EmptyProbeSet(
                f"The probe set has {num_seen} files and not one readable image among them"
                + (f": {reasons[0]}" if reasons else ".")
            )
        return {**good.save(store), "num_skipped": num_skipped, "reasons": reasons}


class _GoodImages:
    """What is written down of images that can be read: on disk as it comes."""

    def __init__(self, folder: Path) -> None:
        self._digests = RowFile(folder / "digests.npy", np.uint8)
        self._places = RowFile(folder / "places.npy", np.uint8)
        self._ends = RowFile(folder / "ends.npy", np.uint64)
        self._end = 0

    def add(self, digest: bytes, place: str) -> None:
        """Adds an image; `place` is its "scheme:key"."""
        text = os.fsencode(place)
        self._end += len(text)
        self._digests.append(np.frombuffer(digest, np.uint8).reshape(1, DIGEST_BYTES))
        self._places.append(np.frombuffer(text, np.uint8).reshape(-1, 1))
        self._ends.append(np.array([[self._end]], np.uint64))

    def save(self, store: ArtifactStore) -> dict[str, str]:
        """References of the three arrays: digests (images, 32), the texts, and where each ends."""
        files = {"digests": self._digests, "places": self._places, "ends": self._ends}
        return {name: store.put_file(file.finish()) for name, file in files.items()}


def _examine_all(
    specs: Sequence[Spec], store: ArtifactStore, pool: Executor, stopping: threading.Event
) -> Iterator[tuple[str, str, bytes | BadImage]]:
    """Every image in order, with its digest or what is wrong with it; some are decoded ahead."""

    def examine(scheme: str, entry: Entry) -> bytes | BadImage:
        if entry.error:
            return BadImage(entry.error)
        try:
            data = SOURCES[scheme].read(entry.key) if entry.data is None else entry.data
            decode_image(data)
        except BadImage as error:
            return error
        if entry.keep:
            store.put_bytes(data)
        return hashlib.sha256(data).digest()

    ahead: deque[tuple[str, str, int, Future[bytes | BadImage]]] = deque()
    num_bytes = 0

    def take() -> tuple[str, str, bytes | BadImage]:
        nonlocal num_bytes
        scheme, key, size, future = ahead.popleft()
        num_bytes -= size
        return scheme, key, future.result()

    try:
        for scheme, entry in _list_all(specs):
            if stopping.is_set():
                raise Unavailable("The server is shutting down; another one reads this probe set.")
            size = len(entry.data or b"")
            num_bytes += size
            ahead.append((scheme, entry.key, size, pool.submit(examine, scheme, entry)))
            while len(ahead) > ENTRIES_AHEAD or num_bytes > BYTES_AHEAD:
                yield take()
        while ahead:
            yield take()
    finally:
        for *_, future in ahead:
            future.cancel()
