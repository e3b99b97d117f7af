"""DnD step 1: the images and crops that excite each unit most.

Per unit: the top images of the index, the regions of high activation in each, and all of them shown
to the network again, in batches that units and requests share. What is measured is the very picture
that is stored and captioned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeAlias, TypeVar

import numpy as np
from PIL import Image

from dnd.artifacts import ArtifactStore
from dnd.errors import DndError, UnitOutOfRange
from dnd.images import decode_image, encode_png
from dnd.manifest import Manifest
from dnd.profiles import ExemplarSettings
from dnd.rounding import round_value
from dnd.types import (
    Box,
    DecileImage,
    Exemplar,
    LayerKind,
    OrError,
    TopImages,
    UnitActivity,
    UnitExemplars,
)
from dnd_services.activations.crops import (
    cut_picture,
    find_boxes,
    fit_picture,
    frame_of,
    to_source_box,
)
from dnd_services.activations.merge import MIN_SPARSE, LayerRecord
from dnd_services.activations.network import Network
from dnd_services.activations.passes import Caller, Passes
from dnd_services.activations.ranking import NUM_DIGITS, Candidate, pick_deciles, rank_candidates

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """A whole image or a crop of it, as stored.

    Attributes:
        ref: Of the PNG in the artifact store.
        box: The region of the source image; None for the whole image.
        pixels: What the network sees of it; None if that is what it saw of the source when the
            index was made, so that its activations are known.
    """

    ref: str
    box: Box | None
    pixels: np.ndarray | None


_Found: TypeAlias = dict[int, list[tuple[Picture, float]]]
"""Of one source image: for each unit its pictures and what the unit answers to them."""


def check_units(index: LayerRecord, units: Sequence[int]) -> None:
    """Raises UnitOutOfRange unless the layer has all of `units`."""
    for unit in units:
        if not 0 <= unit < index.record.num_units:
            raise UnitOutOfRange(
                f"Unit {unit} is asked for: layer {index.record.layer!r} has units 0 to "
                f"{index.record.num_units - 1}."
            )


def rank_images(index: LayerRecord, unit: int) -> list[tuple[int, float]]:
    """Numbers and activations of a unit's top images, best first; none of dead and tied units."""
    if index.activities[unit] in (UnitActivity.DEAD, UnitActivity.TIED):
        return []
    return sorted(
        index.top_images(unit), key=lambda pair: (-round_value(pair[1], NUM_DIGITS), pair[0])
    )


def list_top_images(
    index: LayerRecord, store: ArtifactStore, units: Sequence[int]
) -> list[TopImages]:
    """The source images that excite each unit most, as many as the index kept.

    Raises:
        UnitOutOfRange: The layer does not have one of the units.
    """
    check_units(index, units)
    manifest = Manifest.load(store, index.record.manifest_ref)
    listed = []
    for unit in units:
        top = rank_images(index, unit)
        values = [value for _, value in top]
        sample = index.summary.sample_values[:, unit]
        usual = sample if len(sample) else values
        listed.append(
            TopImages(
                unit=unit,
                sources=tuple(manifest.refs(number for number, _ in top)),
                activations=tuple(values),
                median=float(np.median(usual)) if len(usual) else 0.0,
            )
        )
    return listed


class ExemplarSelector:
    """Selects exemplars of the units of one layer.

    Args:
        network: Its layers have been checked.
        index: Of the layer.
        settings: Of the profile.
        store: Where images lie and exemplars go.
        passes: Runs the network.
        caller: On whose behalf.
        pool: Decodes, crops and encodes.
        limit: How many source images may be under way at once, over all requests.
    """

    def __init__(
        self,
        network: Network,
        index: LayerRecord,
        settings: ExemplarSettings,
        store: ArtifactStore,
        passes: Passes,
        caller: Caller,
        pool: Executor,
        limit: asyncio.Semaphore,
    ) -> None:
        self._network = network
        self._index = index
        self._settings = settings
        self._store = store
        self._passes = passes
        self._caller = caller
        self._pool = pool
        self._limit = limit
        self._known: dict[int, dict[int, float]] = {}
        self._manifest = Manifest.load(store, index.record.manifest_ref)
        self._has_crops = (
            settings.max_crops > 0
            and index.kind is not LayerKind.LINEAR
            and (index.kind is LayerKind.CONV or settings.token_maps)
        )

    async def select(
        self, units: Sequence[int], choices: Sequence[frozenset[str]]
    ) -> list[OrError[UnitExemplars]]:
        """The exemplars of each unit, in order; images are shared by all units that want them.

        Args:
            units: Indices; one may be asked for several times, with different choices.
            choices: For each unit the references of the images to choose from; empty for all.

        Raises:
            UnitOutOfRange: The layer does not have one of the units.
        """
        check_units(self._index, units)
        wanted = [self._images_of(unit, refs) for unit, refs in zip(units, choices, strict=True)]
        users: dict[int, dict[int, None]] = {}
        for unit, numbers in zip(units, wanted, strict=True):
            for number in numbers:
                users.setdefault(number, {})[unit] = None
        found = await asyncio.gather(
            *(self._probe_image(number, list(asking)) for number, asking in users.items())
        )
        by_image = dict(zip(users, found, strict=True))
        return [
            await self._in_pool(self._finish, unit, numbers, by_image)
            for unit, numbers in zip(units, wanted, strict=True)
        ]

    def _images_of(self, unit: int, choice: frozenset[str]) -> list[int]:
        """Numbers of the images to consider for a unit, most activating first."""
        top = rank_images(self._index, unit)
        if choice:
            refs = self._manifest.refs(number for number, _ in top)
            top = [pair for pair, ref in zip(top, refs, strict=True) if ref in choice]
        if len(top) < MIN_SPARSE:
            return []
        best = top[: self._settings.num_images]
        self._known.setdefault(unit, {}).update(best)
        return [number for number, _ in best]

    async def _probe_image(self, number: int, units: list[int]) -> OrError[_Found]:
        """Whole image and crops of one source image, measured, for each unit that wants it."""
        async with self._limit:
            try:
                boxes = await self._find_boxes(number, units)
                places = list(dict.fromkeys([None, *(b for found in boxes for b in found)]))
                pictures = await self._in_pool(self._cut, number, places)
                unknown = [picture.pixels for picture in pictures if picture.pixels is not None]
                rows = await self._passes.measure(
                    self._caller,
                    self._network,
                    (self._index.record.layer,),
                    self._index.pooling,
                    unknown,
                )
            except DndError as error:
                return error
        measured = iter(rows)
        answers = {
            place: (picture, None if picture.pixels is None else next(measured)[0])
            for place, picture in zip(places, pictures, strict=True)
        }
        results: _Found = {}
        for unit, found in zip(units, boxes, strict=True):
            results[unit] = []
            for place in (None, *found):
                picture, row = answers[place]
                value = self._known[unit][number] if row is None else float(row[unit])
                results[unit].append((picture, value))
        return results

    async def _find_boxes(self, number: int, units: list[int]) -> list[list[Box]]:
        """For each unit the boxes of its regions, in the frame that the geometry names."""
        if not self._has_crops:
            return [[] for _ in units]
        pixels = await self._in_pool(self._see, number)
        maps = await self._passes.read_maps(
            self._caller, self._network, self._index.record.layer, pixels, units
        )
        if maps is None:
            return [[] for _ in units]
        frame = frame_of(self._settings, self._network.preprocessing)
        return await self._in_pool(lambda: [find_boxes(m, frame, self._settings) for m in maps])

    def _source(self, number: int) -> Image.Image:
        (ref,) = self._manifest.refs([number])
        return decode_image(self._store.get_bytes(ref))

    def _see(self, number: int) -> np.ndarray:
        return self._network.preprocessing.prepare(self._source(number))

    def _cut(self, number: int, places: Sequence[Box | None]) -> list[Picture]:
        """Stores the whole image (None) and its crops as squares."""
        source = self._source(number)
        preprocessing = self._network.preprocessing
        pictures = []
        for place in places:
            if place is None:
                box, shown = None, fit_picture(source, self._settings.size, self._settings.fit)
            else:
                box = to_source_box(place, source.size, self._settings, preprocessing)
                shown = cut_picture(source, place, box, self._settings)
            ref = self._store.put_bytes(encode_png(shown))
            pixels = preprocessing.prepare(shown)
            known = place is None and np.array_equal(pixels, preprocessing.prepare(source))
            pictures.append(Picture(ref, box, None if known else pixels))
        return pictures

    def _finish(
        self,
        unit: int,
        numbers: Sequence[int],
        by_image: dict[int, OrError[_Found]],
    ) -> OrError[UnitExemplars]:
        """Ranks a unit's pictures and adds what the report shows of it."""
        candidates: list[Candidate] = []
        for number in numbers:
            found = by_image[number]
            if isinstance(found, DndError):
                return found
            (source,) = self._manifest.refs([number])
            candidates += [
                Candidate(number, place, Exemplar(picture.ref, source, picture.box, activation))
                for place, (picture, activation) in enumerate(found[unit])
            ]
        activity = self._index.activities[unit]
        activations_ref = ""
        if activity in (UnitActivity.LIVE, UnitActivity.SPARSE):
            values = self._index.select_activations(unit)
            if values is not None:
                activations_ref = self._store.put_array(values)
        return UnitExemplars(
            unit=unit,
            exemplars=rank_candidates(candidates, self._settings),
            deciles=self._deciles(unit),
            activity=activity,
            activations_ref=activations_ref,
        )

    def _deciles(self, unit: int) -> tuple[DecileImage, ...]:
        if self._index.activities[unit] is UnitActivity.DEAD:
            return ()
        picked = pick_deciles(
            self._index.summary.sample_values[:, unit],
            self._index.summary.sample_images,
            self._settings.num_per_decile,
        )
        refs = self._manifest.refs(image for _, image, _ in picked)
        return tuple(
            DecileImage(ref, decile, value)
            for ref, (decile, _, value) in zip(refs, picked, strict=True)
        )

    async def _in_pool(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(function, *args, **kwargs))
