"""DnD step 3: the activations of the layers' units on sets of images, measured once and kept.

A set is measured for all units of a layer in one pass and remembered under its key, so that other
units, jobs and the null distribution need no pass of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from dnd import keys
from dnd.artifacts import ArtifactStore
from dnd.errors import DndError
from dnd.profiles import Pooling
from dnd.serving.inputs import prepare_images
from dnd.types import Measurement, OrError
from dnd.v1 import activations_pb2
from dnd_services.activations.network import Network
from dnd_services.activations.passes import Caller, Passes


async def measure_sets(
    network: Network,
    layers: tuple[str, ...],
    sets: Sequence[activations_pb2.ImageSet],
    pooling: Pooling,
    show_at: int,
    *,
    store: ArtifactStore,
    passes: Passes,
    caller: Caller,
) -> list[OrError[Measurement]]:
    """The measurement of each set, in order; a set with a bad image has an error.

    Args:
        network: Its layers have been checked.
        layers: Module paths, all of them in the one pass.
        sets: Images and key of each; a set without a key is measured, and not remembered.
        pooling: How a map becomes an activation.
        show_at: Images are shrunk to squares of this side first, pixels; 0 for as they are.
    """

    def prepare(image: Image.Image) -> np.ndarray:
        if show_at:
            image = image.resize((show_at, show_at), Image.Resampling.BICUBIC)
        return network.preprocessing.prepare(image)

    async def measure(one: activations_pb2.ImageSet) -> OrError[Measurement]:
        names = [measurement_key(network, layer, one, pooling, show_at) for layer in layers]
        if one.key and (known := await asyncio.to_thread(_recall, store, names)):
            passes.count_known(len(one.images))
            return Measurement(one.key, known)
        pictures: list[np.ndarray] = []
        for number, picture in enumerate(await prepare_images(one.images, store, prepare)):
            if isinstance(picture, DndError):
                return type(picture)(f"Image {number} of set {one.key!r}: {picture.message}")
            pictures.append(picture)
        try:
            rows = await passes.measure(caller, network, layers, pooling, pictures)
            return await asyncio.to_thread(_store, store, one.key, names, rows)
        except DndError as error:
            return error

    return list(await asyncio.gather(*map(measure, sets)))


def measurement_key(
    network: Network, layer: str, one: activations_pb2.ImageSet, pooling: Pooling, show_at: int
) -> str:
    """Where the measurement of a set is remembered.

    Drawings may fail, so the same key may come with other images: they are part of the name.
    """
    images = [image.ref or hashlib.sha256(image.data).hexdigest() for image in one.images]
    return keys.stage_key("measure", network.digest, layer, one.key, images, pooling, show_at)


def _recall(store: ArtifactStore, names: Sequence[str]) -> tuple[str, ...]:
    """References of the arrays of a set that was measured before; none if any is missing."""
    refs = [store.recall(name) for name in names]
    return tuple(ref for ref in refs if ref) if all(refs) else ()


def _store(
    store: ArtifactStore, key: str, names: Sequence[str], rows: Sequence[tuple[np.ndarray, ...]]
) -> Measurement:
    refs = []
    for place, name in enumerate(names):
        ref = store.put_array(np.stack([row[place] for row in rows]).astype(np.float32))
        if key:
            store.remember(name, ref)
        refs.append(ref)
    return Measurement(key, tuple(refs))
