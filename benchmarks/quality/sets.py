"""The units whose concept is known: planted ones, ImageNet classes, kinds of emoji."""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.quality import groups, planted
from benchmarks.quality.world import (
    NUM_TRAINED,
    NUM_VIEWS,
    World,
    choose_concepts,
    draw_judge_style,
    draw_openmoji,
)

CLASSES = Path(__file__).with_name("imagenet_emoji.csv")
KNOWN = "planted, one concept, known to the pack"
WITHHELD = "planted, one concept, withheld from the pack"
TWO = "planted, two concepts"
IMAGENET = "ImageNet classes"
PREFERRED = "ImageNet classes whose emoji is among the unit's exemplars"
GROUPS = "emoji groups"


@dataclass(frozen=True)
class UnitSet:
    """Units of one network that are labelled together.

    Attributes:
        truths: Unit to the names of its concepts; no names for a unit that must get no label.
        parts: Name of a table to its units.
        stands_for: Unit to the kind of planted unit it is, of those that must get no label.
        emoji: Unit to the code of the emoji of its concept, for units of the default probe set.
    """

    model: str
    layer: str
    probe: str
    truths: Mapping[int, tuple[str, ...]]
    parts: Mapping[str, tuple[int, ...]]
    stands_for: Mapping[int, str] = field(default_factory=dict)
    emoji: Mapping[int, str] = field(default_factory=dict)


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
        (_planted_set(folder, world, units, max_units), _class_set(max_units), _group_set()),
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


def _class_set(max_units: int) -> UnitSet:
    """Classifier units of EfficientNet-Lite0 whose class has an emoji (a reviewed list)."""
    with CLASSES.open(encoding="utf-8", newline="") as file:
        rows = {int(row["class_index"]): row for row in csv.DictReader(file)}
    units = _some(list(rows), max_units)
    names = {unit: (rows[unit]["emoji"], rows[unit]["class_name"].lower()) for unit in units}
    return UnitSet(
        "efficientnet_lite0",
        "_fc",
        "openmoji",
        {unit: tuple(dict.fromkeys(own)) for unit, own in names.items()},
        {IMAGENET: units},
        emoji={unit: rows[unit]["hexcode"] for unit in units},
    )


def find_preferred(
    one: UnitSet, exemplars: Mapping[int, Sequence[str]], emoji: Mapping[str, str]
) -> dict[str, tuple[int, ...]]:
    """The part of the class units that prefer the emoji of their class among the probe images.

    Args:
        exemplars: References of each unit's exemplars.
        emoji: Reference of a probe image to the code of its emoji.
    """
    found = [
        unit
        for unit, code in one.emoji.items()
        if code in {emoji.get(reference) for reference in exemplars[unit]}
    ]
    return {PREFERRED: tuple(found)} if found else {}


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
