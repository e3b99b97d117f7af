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
    choose_concepts,
    draw_judge_style,
    draw_openmoji,
)
from dnd.manifest import is_judge
from dnd.profiles import get_profile

CLASS_FILE = Path(__file__).with_name("imagenet_emoji.csv")
KINDS = ("planted", "groups", "classes")
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


def make_set(kind: str, folder: Path, max_units: int) -> UnitSet:
    """Makes the units of a kind, and tells the services where they lie.

    Call it for all but "classes" before the stack starts: its processes read where networks lie.

    Args:
        kind: One of `KINDS`.
        folder: Where probe sets and networks are written; for "classes" the stack's home is in it.
        max_units: Of a part; which ones is drawn with a fixed seed.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    if kind == "planted":
        return _planted_set(folder, max_units)
    if kind == "groups":
        return _group_set(folder)
    return _class_set(folder / "home/probes", max_units)


def _planted_set(folder: Path, max_units: int) -> UnitSet:
    """The planted units: those of one concept by whether the pack has seen it, of two, of none."""
    concepts = choose_concepts()
    world = draw_openmoji(concepts, NUM_VIEWS, seed=1)
    world.write(folder / "world", seed=2)
    heads = folder / "planted.safetensors"
    units, precision = planted.plant(heads, world.pictures, draw_judge_style(concepts, 3, seed=3))
    os.environ[planted.VARIABLE] = str(heads)
    num_found = int((precision >= planted.MIN_AVERAGE_PRECISION).sum())
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
        note=f"{num_found} of {len(concepts)} planted heads find their concept in a style that "
        "they were not trained on",
    )


def _class_set(folder: Path, max_units: int) -> UnitSet:
    """Classifier units of EfficientNet-Lite0 whose class has an emoji (a reviewed list).

    Some of all, and some of those that prefer the emoji of their class among the images that jobs
    on the default probe set see: the others name a thing that excites them less than other things.

    Args:
        folder: The default probe set, as the stack draws it.
    """
    with CLASS_FILE.open(encoding="utf-8", newline="") as file:
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


def _group_set(folder: Path) -> UnitSet:
    """Outputs of the small network."""
    accuracy = groups.train(folder / "groups.safetensors")
    os.environ[groups.VARIABLE] = str(folder / "groups.safetensors")
    truths = {number: (name,) for number, name in enumerate(groups.KINDS.values())}
    return UnitSet(
        "python:benchmarks.quality.groups:load",
        groups.LAYER,
        "openmoji",
        truths,
        {GROUPS: tuple(truths)},
        note=f"the network of emoji groups is right on {accuracy:.0%} of views it has not seen",
    )


def _some(units: Sequence[int], max_units: int) -> tuple[int, ...]:
    chosen = random.Random(0).sample(units, min(len(units), max_units))
    return tuple(sorted(chosen))
