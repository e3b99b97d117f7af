"""Images that hardly excite a unit, captioned and shown as what its label must not cover."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dnd import stages
from dnd.clients import Services
from dnd.errors import BadImage, DndError, Unavailable
from dnd.profiles import get_profile
from dnd.records import JobFacts, UnitFacts, build_record
from dnd.stages import Captions, Plan
from dnd.testing import Fakes, start_fakes
from dnd.types import (
    DecileImage,
    Exemplar,
    LayerIndex,
    Proposal,
    UnitActivity,
    UnitExemplars,
)

LAYER = "features.conv"


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fakes]:
    with start_fakes(Path(tmp_path_factory.mktemp("contrast"))) as running:
        yield running


@pytest.fixture
def services(fakes: Fakes) -> Iterator[Services]:
    connected = Services.connect(fakes.targets, fakes.artifacts, deadline_s=20.0)
    yield connected
    connected.close()
    fakes.clear_faults()


def make_plan(services: Services, contrast: int) -> tuple[Plan, LayerIndex]:
    profile = get_profile("starter", {"propose.contrast": str(contrast)})
    probe = services.activations.get_probe_set("shapes", 0.2)
    plan = Plan("tiny", (LAYER,), probe.manifest_ref, profile)
    shards = [
        stages.index_shard(services, plan, *shard) for shard in stages.plan_shards(probe, profile)
    ]
    (index,) = stages.merge_shards(services, shards)
    return plan, index


def select(services: Services, plan: Plan, index: LayerIndex, unit: int) -> UnitExemplars:
    (found,) = stages.select_exemplars(services, plan, index.index_ref, [unit])
    assert isinstance(found, UnitExemplars)
    return found


def caption(services: Services, plan: Plan, exemplars: UnitExemplars) -> Captions:
    (found,) = stages.caption_exemplars(services, plan, [exemplars])
    assert isinstance(found, Captions), found
    return found


def test_contrast_is_of_the_lowest_tenths_and_none_is_an_exemplar() -> None:
    deciles = [
        DecileImage(f"{decile}-{n}", decile, decile + n / 10)
        for decile in range(10)
        for n in range(2)
    ]
    unit = UnitExemplars(
        0, (Exemplar("crop", "0-1", None, 9.0),), tuple(deciles), UnitActivity.LIVE
    )
    other = replace(unit, exemplars=(Exemplar("1-0", "1-0", None, 8.0),))
    assert stages.choose_contrast(unit, 3) == ["0-0", "1-0", "1-1"]
    assert stages.choose_contrast(replace(unit, facets=(other,)), 3) == ["0-0", "1-1", "2-0"]
    assert stages.choose_contrast(unit, 16)[-1] == "4-1"
    assert stages.choose_contrast(unit, 0) == []
    assert stages.choose_contrast(replace(unit, deciles=()), 3) == []


def test_contrast_is_captioned_shown_and_recorded(services: Services, fakes: Fakes) -> None:
    plan, index = make_plan(services, 3)
    exemplars = select(services, plan, index, 1)
    captions = caption(services, plan, exemplars)
    assert [one.image for one in captions.contrast] == stages.choose_contrast(exemplars, 3)
    assert len(captions.contrast) == 3
    assert fakes.captioner.faults.num_calls["CaptionImages"] == 1

    off, _ = make_plan(services, 0)
    plain = caption(services, off, exemplars)
    assert plain == replace(captions, contrast=())
    # The fake takes no word that the contrast has.
    own = replace(captions, contrast=(replace(captions.contrast[0], text=captions.usable[0]),))
    before, after = (
        stages.propose_concepts(services, plan, LAYER, [(1, one)])[0] for one in (plain, own)
    )
    assert isinstance(before, Proposal)
    assert isinstance(after, Proposal)
    taken = {word for word in captions.usable[0].split() if word not in ("a", "beside")}
    assert taken & {one.text for one in before.candidates}
    assert not taken & {one.text for one in after.candidates}

    facts = UnitFacts(LAYER, 1, "labeled", exemplars, captions, after)
    record = build_record(JobFacts("j", "tiny", "shapes", plan.profile, 0, {}), facts)
    said = {one["image"]: one["caption"] for one in record["deciles"] if one["caption"]}
    assert said == {one.image: one.text for one in captions.contrast}


def test_every_kind_of_images_has_the_contrast_of_its_unit(services: Services) -> None:
    plan, _ = make_plan(services, 3)
    contrast = (stages.ContrastCaption("sha256:a", "a dog beside a cat"),)
    own = Captions(("a dog beside a bus", "a cat beside a bus"))
    units = [(1, replace(own, facets=(own,), contrast=contrast))]
    (found,) = stages.propose_concepts(services, plan, LAYER, units)
    assert isinstance(found, Proposal)
    assert [[one.text for one in part.candidates] for part in found.parts] == [["bus"], ["bus"]]


def test_picture_without_a_caption_is_left_out(services: Services, fakes: Fakes) -> None:
    plan, index = make_plan(services, 3)
    exemplars = select(services, plan, index, 1)
    first, *others = stages.choose_contrast(exemplars, 3)
    fakes.captioner.faults.item = lambda image: BadImage("broken") if image == first else None
    assert [one.image for one in caption(services, plan, exemplars).contrast] == others


def test_what_may_succeed_later_is_no_missing_contrast(services: Services, fakes: Fakes) -> None:
    plan, index = make_plan(services, 3)
    exemplars = select(services, plan, index, 1)
    first = stages.choose_contrast(exemplars, 3)[0]
    fakes.captioner.faults.item = lambda image: Unavailable("busy") if image == first else None
    (found,) = stages.caption_exemplars(services, plan, [exemplars])
    assert isinstance(found, DndError)
    assert found.message == "busy"
