"""Labels that a vision-language captioner gives to the exemplars of a unit all together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dnd import stages
from dnd.clients import Services
from dnd.errors import BadAnswer, DndError, LlmRateLimited
from dnd.images import decode_image
from dnd.montages import TILE_PIXELS
from dnd.profiles import get_profile
from dnd.stages import Captions, Plan
from dnd.testing import Fakes, start_fakes
from dnd.testing.values import draw_picture
from dnd.types import CandidateOrigin, Exemplar, Proposal, UnitActivity, UnitExemplars

LAYER = "features.conv"


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fakes]:
    with start_fakes(Path(tmp_path_factory.mktemp("labels"))) as running:
        yield running


@pytest.fixture
def services(fakes: Fakes) -> Iterator[Services]:
    connected = Services.connect(fakes.targets, fakes.artifacts, deadline_s=20.0)
    yield connected
    connected.close()
    fakes.clear_faults()


def make_plan(num_labels: int) -> Plan:
    overrides = {"caption.num_labels": str(num_labels), "propose.max_candidates": "20"}
    profile = get_profile("starter", overrides)
    return Plan("tiny", (LAYER,), "sha256:none", profile)


def make_unit(services: Services, *seeds: int) -> UnitExemplars:
    refs = [services.artifacts.put_bytes(draw_picture(24, seed)) for seed in seeds]
    exemplars = tuple(Exemplar(ref, ref, None, 9.0 - place) for place, ref in enumerate(refs))
    return UnitExemplars(1, exemplars, (), UnitActivity.LIVE)


def caption(services: Services, plan: Plan, unit: UnitExemplars) -> Captions:
    (found,) = stages.caption_exemplars(services, plan, [unit])
    assert isinstance(found, Captions), found
    return found


def test_labels_of_each_kind_join_its_candidates(services: Services, fakes: Fakes) -> None:
    other = make_unit(services, 7, 8, 9, 10, 11)
    unit = replace(make_unit(services, 1, 2, 3, 4, 5, 6), facets=(other,))
    plan = make_plan(2)
    captions = caption(services, plan, unit)
    assert all(1 <= len(part.labels) <= 2 for part in captions.parts)
    assert captions.labels != captions.facets[0].labels
    assert captions.labels == caption(services, plan, replace(unit, facets=())).labels
    assert caption(services, make_plan(0), unit) == replace(
        captions, labels=(), facets=(replace(captions.facets[0], labels=()),)
    )
    (proposal,) = stages.propose_concepts(services, plan, LAYER, [(1, captions)])
    assert isinstance(proposal, Proposal)
    for part, own in zip(proposal.parts, captions.parts, strict=True):
        origins = {one.text: one.origin for one in part.candidates}
        assert set(own.labels) <= set(origins)
        assert CandidateOrigin.VISION_LANGUAGE in {origins[text] for text in own.labels}


def test_exemplars_are_shown_in_order_in_one_picture(services: Services, fakes: Fakes) -> None:
    unit = make_unit(services, 1, 2, 3, 4, 5)
    caption(services, make_plan(2), unit)
    exemplars = {one.image for one in unit.exemplars}
    asked = {item for _, item in fakes.captioner.faults.num_items} - exemplars
    montage = decode_image(services.artifacts.get_bytes(asked.pop()))
    assert not asked
    assert montage.width > 3 * TILE_PIXELS > montage.height > 2 * TILE_PIXELS
    first = decode_image(services.artifacts.get_bytes(unit.exemplars[0].image))
    tile = montage.crop((8, 8, 8 + TILE_PIXELS, 8 + TILE_PIXELS)).resize(first.size)
    assert abs(tile.getpixel((3, 3))[0] - first.getpixel((3, 3))[0]) < 20  # type: ignore[index]


def test_unit_goes_on_without_labels_when_the_answer_was_none(
    services: Services, fakes: Fakes
) -> None:
    unit = make_unit(services, 1, 2, 3, 4, 5)
    exemplars = {one.image for one in unit.exemplars}
    fakes.captioner.faults.item = lambda ref: None if ref in exemplars else BadAnswer("nothing")
    found = caption(services, make_plan(2), unit)
    assert found.labels == ()
    assert len(found.usable) == 5


def test_what_may_succeed_later_is_no_missing_label(services: Services, fakes: Fakes) -> None:
    unit = make_unit(services, 1, 2, 3, 4, 5)
    exemplars = {one.image for one in unit.exemplars}
    fakes.captioner.faults.item = lambda ref: None if ref in exemplars else LlmRateLimited("busy")
    (found,) = stages.caption_exemplars(services, make_plan(2), [unit])
    assert isinstance(found, LlmRateLimited)


def test_lost_exemplar_and_none_at_all_are_errors_of_their_units(services: Services) -> None:
    lost = Exemplar("sha256:" + "0" * 64, "sha256:x", None, 1.0)
    good = make_unit(services, 1, 2, 3, 4, 5)
    some = replace(good, exemplars=(*good.exemplars, lost))
    none = replace(good, exemplars=())
    first, second, third = stages.caption_exemplars(services, make_plan(2), [some, none, good])
    assert isinstance(first, Captions)
    assert (first.labels, first.texts[-1]) == ((), None)
    assert isinstance(second, DndError)
    assert isinstance(third, Captions)
    assert third.labels
