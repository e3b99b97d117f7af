"""The units whose concept is known: planted ones, ImageNet classes, kinds of emoji."""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.quality import groups, planted
from benchmarks.quality.world import (
    NUM_TRAINED,
    NUM_VIEWS,
    World,
    choose_concepts,
    draw_judge_style,
    draw_openmoji,
)
from dnd.manifest import is_judge
from dnd.profiles import get_profile

CLASSES = Path(__file__).with_name("imagenet_emoji.csv")
KNOWN = "planted, one concept, known to the pack"
WITHHELD = "planted, one concept, withheld from the pack"
TWO = "planted, two concepts"
IMAGENET = "ImageNet classes"
PREFERRED = "ImageNet classes whose emoji the unit prefers"
NUM_STRONGEST = 10
GROUPS = "emoji groups"


@dataclass(frozen=True)
class UnitSet:
    """Units of one network that are labelled together.

    Attributes:
        truths: Unit to the names of its concepts; no names for a unit that must get no label.
        parts: Name of a table to its units.
        stands_for: Unit to the kind of planted unit it is, of those that must get no label.
        note: What else is to be said of the set.
    """

    model: str
    layer: str
    probe: str
    truths: Mapping[int, tuple[str, ...]]
    parts: Mapping[str, tuple[int, ...]]
    stands_for: Mapping[int, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made, and how good it is.

    Attributes:
        num_heads: Planted heads that find their concept in the other style, of `num_concepts`.
        group_accuracy: Of the small network, on views that it has not seen.
    """

    sets: tuple[UnitSet, ...]
    num_heads: int
    num_concepts: int
    group_accuracy: float


def prepare(folder: Path, max_units: int) -> Prepared:
    """Writes the probe set and the networks, and tells the services where they lie.

    Args:
        max_units: Of a part; which ones is drawn with a fixed seed.
    """
    concepts = choose_concepts()
    world = draw_openmoji(concepts, NUM_VIEWS, seed=1)
    world.write(folder / "world", seed=2)
    heads = folder / "planted.safetensors"
    units, precision = planted.plant(heads, world.pictures, draw_judge_style(concepts, 3, seed=3))
    accuracy = groups.train(folder / "groups.safetensors")
    os.environ[planted.VARIABLE] = str(heads)
    os.environ[groups.VARIABLE] = str(folder / "groups.safetensors")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    return Prepared(
        (_planted_set(folder, world, units, max_units), _group_set()),
        int((precision >= planted.MIN_AVERAGE_PRECISION).sum()),
        len(concepts),
        accuracy,
    )


def _planted_set(
    folder: Path, world: World, units: Sequence[planted.PlantedUnit], max_units: int
) -> UnitSet:
    """The planted units: those of one concept by whether the pack has seen it, of two, of none."""
    names = [concept.name for concept in world.concepts]

    def places(kind: str, withheld: bool | None = None) -> tuple[int, ...]:
        found = [
            number
            for number, unit in enumerate(units)
            if unit.kind == kind
            and (withheld is None or (unit.concepts[0] >= NUM_TRAINED) is withheld)
        ]
        return _some(found, max_units)

    parts = {
        KNOWN: places("one", withheld=False),
        WITHHELD: places("one", withheld=True),
        TWO: places("two"),
    }
    labelled = {
        number: tuple(names[place] for place in units[number].concepts)
        for part in parts.values()
        for number in part
    }
    silent = {
        number: unit.kind for number, unit in enumerate(units) if unit.kind in ("dead", "tied")
    }
    return UnitSet(
        "python:benchmarks.quality.planted:load",
        planted.LAYER,
        str(folder / "world"),
        {**labelled, **dict.fromkeys(silent, ())},
        parts,
        silent,
    )


def class_set(folder: Path, max_units: int) -> UnitSet:
    """Classifier units of EfficientNet-Lite0 whose class has an emoji (a reviewed list).

    Some of all, and some of those that prefer the emoji of their class among the images that jobs
    on the default probe set see: the others name a thing that excites them less than other things.

    Args:
        folder: The default probe set, as the stack draws it.
    """
    with CLASSES.open(encoding="utf-8", newline="") as file:
        rows = {int(row["class_index"]): row for row in csv.DictReader(file)}
    preferring = _find_preferring({unit: row["hexcode"] for unit, row in rows.items()}, folder)
    parts = {IMAGENET: _some(list(rows), max_units), PREFERRED: _some(preferring, max_units)}
    units = sorted({unit for part in parts.values() for unit in part})
    names = {unit: (rows[unit]["emoji"], rows[unit]["class_name"].lower()) for unit in units}
    return UnitSet(
        "efficientnet_lite0",
        "_fc",
        "openmoji",
        {unit: tuple(dict.fromkeys(own)) for unit, own in names.items()},
        parts,
        note=f"{len(preferring)} of {len(rows)} classes have their emoji among the ten images "
        "that excite the unit most",
    )


def _find_preferring(emoji: Mapping[int, str], folder: Path) -> list[int]:
    """The classifier units that have the emoji given for them among their ten strongest images."""
    images = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["images"]
    digests = np.array([list(bytes.fromhex(image["sha256"])) for image in images], np.uint8)
    held_out = is_judge(digests, get_profile("starter").index.judge_fraction)
    seen = [image for image, out in zip(images, held_out, strict=True) if not out]
    codes = [image["hexcode"] for image in seen]
    responses = planted.class_responses([folder / "openmoji" / image["file"] for image in seen])
    strongest = {unit: responses[:, unit].argsort()[::-1][:NUM_STRONGEST] for unit in emoji}
    return [
        unit
        for unit, places in strongest.items()
        if emoji[unit] in {codes[place] for place in places}
    ]


def _group_set() -> UnitSet:
    """Outputs of the small network."""
    truths = {number: (name,) for number, name in enumerate(groups.KINDS.values())}
    return UnitSet(
        "python:benchmarks.quality.groups:load",
        groups.LAYER,
        "openmoji",
        truths,
        {GROUPS: tuple(truths)},
    )


def _some(units: Sequence[int], max_units: int) -> tuple[int, ...]:
    chosen = random.Random(0).sample(units, min(len(units), max_units))
    return tuple(sorted(chosen))
