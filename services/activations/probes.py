"""Probe sets: where images come from, and freezing them into a manifest.

A source lists entries and reads them by key. Keys (paths) stay within this service: all that others
see of an image is the digest of its bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dnd import keys
from dnd.artifacts import ArtifactStore, reference_of
from dnd.errors import (
    BadImage,
    DndError,
    EmptyProbeSet,
    FailedPrecondition,
    NotFound,
    Unavailable,
    UnknownName,
)
from dnd.images import MAX_BYTES, decode_image
from dnd.manifest import Manifest, build_manifest
from dnd.types import ProbeSet
from dnd_services.activations.registry import Spec

log = logging.getLogger(__name__)

MAX_REASONS = 20
_CHUNK = 256


@dataclass(frozen=True)
class Entry:
    """One file of a source.

    Attributes:
        key: By which the source reads it.
        stamp: Changes when the contents may have changed (size and time of a file).
        error: Why it is no image, where that is known without reading it.
    """

    key: str
    stamp: str
    error: str = ""


class ProbeSource(Protocol):
    """A kind of place that images come from."""

    def list_entries(self, location: str) -> Iterator[Entry]:
        """All entries, in an order that depends on their keys only."""

    def read(self, key: str) -> bytes:
        """The encoded image behind a key of `list_entries`."""


class ImageFolder:
    """Every file below a folder. Hidden ones are not looked at, links are not followed."""

    def list_entries(self, location: str) -> Iterator[Entry]:
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
                yield Entry(path, f"{status.st_size} {status.st_mtime_ns}", error)

    def read(self, key: str) -> bytes:
        try:
            with open(key, "rb") as file:
                return file.read(MAX_BYTES + 1)
        except OSError as error:
            raise BadImage(f"The file cannot be read: {error.strerror}.") from None


SOURCES: dict[str, ProbeSource] = {"imagefolder": ImageFolder()}
"""Scheme of probes.yaml to source. A new kind of source is one more line."""


def freeze_probe_set(
    specs: Sequence[Spec],
    judge_fraction: float,
    store: ArtifactStore,
    pool: Executor,
    stopping: threading.Event,
) -> ProbeSet:
    """Reads every entry once and stores the manifest; an unchanged listing is not read again.

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
    scan_key = keys.stage_key("index", "scan", listing)
    scan_ref = store.recall(scan_key)
    scan = json.loads(store.get_bytes(scan_ref)) if scan_ref else None
    if scan is None or scan["digests"] not in store or scan["places"] not in store:
        scan = _scan(specs, store, pool, stopping)
        store.remember(scan_key, store.put_bytes(json.dumps(scan, sort_keys=True).encode()))
    digests, places = store.get_array(scan["digests"]), store.get_array(scan["places"])
    manifest, positions = build_manifest(np.asarray(digests), judge_fraction)
    num_select = len(manifest) - int(manifest.judge.sum())
    if not num_select:
        raise EmptyProbeSet(
            f"All {len(manifest)} images of the probe set fall into the judge half: give more "
            f"images, or a judge_fraction below {judge_fraction}."
        )
    manifest_ref = manifest.save(store)
    store.remember(_places_key(manifest_ref), store.put_array(places[positions]))
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
        places_ref = store.recall(_places_key(manifest_ref))
        self._places = None if places_ref is None else store.get_array(places_ref)

    def read(self, number: int) -> bytes:
        """The encoded image at `number` in manifest order; it is in the store afterwards.

        Raises:
            FailedPrecondition: The file has gone or changed since the probe set was frozen.
        """
        (ref,) = self.manifest.refs([number])
        if ref in self._store:
            return self._store.get_bytes(ref)
        if self._places is None:
            raise NotFound(f"The artifact store has no {ref}, and nothing says where it came from.")
        scheme, _, key = os.fsdecode(bytes(self._places[number])).partition(":")
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


def _changed(number: int) -> FailedPrecondition:
    return FailedPrecondition(
        f"Image {number} of the probe set has gone or changed since the set was frozen: freeze it "
        "again (GetProbeSet) and start a new job."
    )


def _places_key(manifest_ref: str) -> str:
    return keys.stage_key("index", "places", manifest_ref)


def _list_all(specs: Sequence[Spec]) -> Iterator[tuple[str, Entry]]:
    """Scheme and entry of everything in the sources, in the order of their names."""
    for spec in sorted(specs, key=str):
        for entry in SOURCES[spec.scheme].list_entries(spec.location):
            yield spec.scheme, entry


def _digest_listing(specs: Sequence[Spec]) -> str:
    digest = hashlib.sha256()
    for scheme, entry in _list_all(specs):
        digest.update(f"{scheme}:{entry.key}\0{entry.stamp}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _scan(
    specs: Sequence[Spec], store: ArtifactStore, pool: Executor, stopping: threading.Event
) -> dict[str, Any]:
    """Reads and decodes every entry: digests and places of the good, reasons of the bad."""

    def examine(item: tuple[str, Entry]) -> bytes | DndError:
        scheme, entry = item
        if entry.error:
            return BadImage(entry.error)
        try:
            data = SOURCES[scheme].read(entry.key)
            decode_image(data)
        except DndError as error:
            return error
        return hashlib.sha256(data).digest()

    digests = bytearray()
    places: list[bytes] = []
    reasons: list[str] = []
    num_skipped = num_seen = 0
    items = _list_all(specs)
    while chunk := list(islice(items, _CHUNK)):
        if stopping.is_set():
            raise Unavailable("The server is shutting down; another one reads this probe set.")
        for (scheme, entry), found in zip(chunk, pool.map(examine, chunk), strict=True):
            num_seen += 1
            if isinstance(found, bytes):
                digests += found
                places.append(os.fsencode(f"{scheme}:{entry.key}"))
                continue
            num_skipped += 1
            log.warning("skipped %s: %s", entry.key, found.message)
            if len(reasons) < MAX_REASONS:
                reasons.append(f"File {num_seen} in sorted order: {found.message}")
    if not places:
        raise EmptyProbeSet(
            f"The probe set has {num_seen} files and not one readable image among them"
            + (f": {reasons[0]}" if reasons else ".")
        )
    return {
        "digests": store.put_array(np.frombuffer(digests, np.uint8).reshape(-1, 32)),
        "places": store.put_array(np.array(places)),
        "num_skipped": num_skipped,
        "reasons": reasons,
    }
