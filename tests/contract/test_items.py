"""A bad item has an error of its own; the batch around it is what it would be without it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from contract.asking import Asking
from contract.worlds import World

from dnd.v1 import summarizer_pb2, synthesizer_pb2, types_pb2

NOTHING = "sha256:" + "0" * 64
BAD_IMAGES = [
    (types_pb2.Image(data=b"not an image"), "BadImage"),
    (types_pb2.Image(ref=NOTHING), "NotFound"),
    (types_pb2.Image(ref="nonsense"), "InvalidInput"),
    (types_pb2.Image(), "BadImage"),
]


def bad_score_units(asking: Asking) -> list[tuple[Any, str]]:
    cases = []

    def add(expected: str, spoil: Callable[[Any], object]) -> None:
        unit = asking.score_unit(1.0)
        spoil(unit)
        cases.append((unit, expected))

    add("InvalidInput", lambda unit: unit.ClearField("exemplars"))
    add("InvalidInput", lambda unit: unit.ClearField("candidates"))
    add("InvalidInput", lambda unit: unit.candidates[0].activations.append(1.0))
    add("InvalidInput", lambda unit: unit.candidates[2].images.pop())
    add("InvalidInput", lambda unit: unit.candidates[1].activations.__setitem__(0, math.nan))
    add("InvalidInput", lambda unit: setattr(unit.candidates[1], "text", " "))
    add("RequestTooLarge", lambda unit: unit.candidates.extend([unit.candidates[0]] * 30))
    add("NotFound", lambda unit: setattr(unit.exemplars[0], "ref", NOTHING))
    add("BadImage", lambda unit: setattr(unit.candidates[1].images[0], "data", b"no image"))
    return cases


CASES: dict[str, tuple[str, str, Callable[[Asking], list[tuple[Any, str]]]]] = {
    "MeasureImages": (
        "sets",
        "measurements",
        lambda asking: [(asking.image_set("lost", [asking.pictures[0], NOTHING]), "NotFound")],
    ),
    "CaptionImages": ("images", "captions", lambda _: BAD_IMAGES),
    "ProposeConcepts": (
        "units",
        "proposals",
        lambda _: [(summarizer_pb2.UnitCaptions(captions=["???", "!"], seed=3), "BadAnswer")],
    ),
    "SynthesizeImages": (
        "drawings",
        "images",
        lambda _: [
            (synthesizer_pb2.Drawing(prompt=prompt, seed=1), "InvalidInput")
            for prompt in ("", "  ", "x" * 401)
        ],
    ),
    "ScoreConcepts": ("units", "rankings", bad_score_units),
    "EmbedTexts": (
        "texts",
        "embeddings",
        lambda _: [(text, "InvalidInput") for text in ("", " ", "x" * 1001)],
    ),
    "EmbedImages": ("images", "embeddings", lambda _: BAD_IMAGES),
}


@pytest.mark.parametrize("method", CASES)
def test_bad_items_have_errors_and_the_others_their_results(
    world: World, asking: Asking, method: str
) -> None:
    field, answer, make_bad = CASES[method]
    bad = make_bad(asking)
    request = asking.good(method)
    healthy = list(getattr(world.ask(method, request), answer))
    first, *rest = getattr(request, field)
    del getattr(request, field)[:]
    getattr(request, field).extend([first, *(item for item, _ in bad), *rest])

    found = list(getattr(world.ask(method, request), answer))
    assert [found[0], *found[1 + len(bad) :]] == healthy
    for item, (asked, expected) in zip(found[1:], bad, strict=False):
        assert item.error.reason == expected, asked
        assert item.error.code > 0
        assert len(item.error.message) > 10


def test_unit_whose_images_are_lost_has_an_error_and_the_others_their_exemplars(
    world: World, asking: Asking
) -> None:
    request = asking.good("SelectExemplars")
    healthy = list(world.ask("SelectExemplars", request).units)
    sources = [{exemplar.source.ref for exemplar in one.exemplars} for one in healthy]
    lost, kept = next(
        (a, b)
        for a in range(len(healthy))
        for b in range(len(healthy))
        if sources[a] and sources[b] and not sources[a] & sources[b]
    )
    request.units[:] = [request.units[lost], request.units[kept]]
    with world.lose(request.units[0], sorted(sources[lost])):
        bad, good = world.ask("SelectExemplars", request).units
    assert bad.error.reason == "NotFound"
    assert bad.unit == request.units[0]
    assert not bad.exemplars
    assert good == healthy[kept]
