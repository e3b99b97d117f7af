"""DnD step 1 over gRPC: what a unit's exemplars are, and that each of them is what it says."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from unit.activations.conftest import EXEMPLARS, INDEX, Service, start_service

from dnd.convert import from_message
from dnd.manifest import Manifest
from dnd.profiles import PAPER
from dnd.rounding import round_value
from dnd.types import Box, Exemplar
from dnd.v1 import activations_pb2 as pb
from dnd.v1 import types_pb2
from dnd_services.activations.crops import iou
from dnd_services.activations.merge import open_index
from dnd_services.activations.preprocessing import Preprocessing
from dnd_services.activations.ranking import NUM_DIGITS, Candidate, pick_deciles, rank_candidates


def decode(service: Service, ref: str) -> Image.Image:
    return Image.open(io.BytesIO(service.store.get_bytes(ref)))


async def test_every_exemplar_is_the_picture_that_was_measured(service: Service) -> None:
    (found,) = await service.index("tiny", ["conv2"])
    units = await service.exemplars("tiny", found.index_ref, range(12))
    assert len(units) == 12
    sets = [
        pb.ImageSet(key=f"unit {unit.unit}", images=[one.image for one in unit.exemplars])
        for unit in units
        if unit.exemplars
    ]
    measured = {one.key: one for one in await service.measure("tiny", ["conv2"], sets)}
    num_checked = 0
    for unit in units:
        for place, one in enumerate(unit.exemplars):
            values = service.store.get_array(measured[f"unit {unit.unit}"].activations_refs[0])
            assert values[place, unit.unit] == one.activation  # to the last bit
            assert decode(service, one.image.ref).size == (64, 64)
            num_checked += one.HasField("box")
    assert num_checked > 10


async def test_exemplars_are_ordered_of_the_select_half_and_two_of_a_source(
    service: Service,
) -> None:
    (found,) = await service.index("tiny", ["conv2"])
    record = open_index(service.store, found.index_ref)
    manifest = Manifest.load(service.store, record.record.manifest_ref)
    judges = set(manifest.refs(manifest.judge_indices()))
    for unit in await service.exemplars("tiny", found.index_ref, range(12)):
        if unit.activity != types_pb2.UNIT_ACTIVITY_LIVE:
            continue
        assert len(unit.exemplars) == 10
        values = [round_value(one.activation, NUM_DIGITS) for one in unit.exemplars]
        assert values == sorted(values, reverse=True)
        sources = [one.source.ref for one in unit.exemplars]
        assert max(map(sources.count, sources)) <= 2
        assert not judges & set(sources)
        top = [number for number, _ in record.top_images(unit.unit)]
        assert set(sources) <= set(manifest.refs(top[: EXEMPLARS.num_images + 1]))


async def test_units_together_equal_units_alone(service: Service) -> None:
    (found,) = await service.index("tiny", ["conv2"])
    together = await service.exemplars("tiny", found.index_ref, [4, 1, 9])
    alone = [(await service.exemplars("tiny", found.index_ref, [u]))[0] for u in (4, 1, 9)]
    assert together == alone
    assert [one.unit for one in together] == [4, 1, 9]


async def test_linear_units_have_no_crops(service: Service) -> None:
    (found,) = await service.index("tiny", ["fc"])
    for unit in await service.exemplars("tiny", found.index_ref, range(6)):
        assert unit.exemplars
        assert not any(one.HasField("box") for one in unit.exemplars)


@pytest.mark.parametrize("token_maps", [True, False])
async def test_token_units_have_crops_if_their_maps_are_taken(
    service: Service, token_maps: bool
) -> None:
    listed = await service.stub.ListLayers(pb.ListLayersRequest(model="vit"))
    tokens = [one.path for one in listed.layers if list(one.output_shape) == [17, 16]]
    (found,) = await service.index("vit", tokens[-1:])
    settings = replace(EXEMPLARS, token_maps=token_maps)
    units = await service.exemplars("vit", found.index_ref, range(8), settings)
    boxes = [one for unit in units for one in unit.exemplars if one.HasField("box")]
    assert bool(boxes) is token_maps


async def test_published_profile_squashes_and_has_no_limit_per_source(service: Service) -> None:
    (found,) = await service.index("tiny", ["conv2"])
    settings = replace(PAPER.exemplars, size=48)
    units = await service.exemplars("tiny", found.index_ref, range(12), settings)
    most = 0
    for unit in units:
        sources = [one.source.ref for one in unit.exemplars]
        most = max(most, *map(sources.count, sources), 0)
        assert all(decode(service, one.image.ref).size == (48, 48) for one in unit.exemplars)
    assert most > 2


# --- Known units ----------------------------------------------------------------------------------

RED = [  # size of the picture and where the red square is in it; the middle is what is seen
    ((96, 96), (30, 40, 60, 70)),
    ((160, 90), (60, 20, 90, 50)),
    ((90, 160), (20, 60, 50, 90)),
    ((96, 96), (8, 8, 30, 30)),
    ((200, 100), (55, 60, 85, 90)),
    ((64, 64), (40, 40, 56, 56)),
]


@pytest.fixture
def planted_probes(tmp_path: Path, offered: Path) -> Path:
    """models.yaml as offered; a probe set of red squares on grey, and of red and black pictures."""
    folder = tmp_path / "planted"
    (folder / "squares").mkdir(parents=True)
    (folder / "plain").mkdir()
    for number, (size, square) in enumerate(RED * 2):
        picture = Image.new("RGB", size, (100 + number, 100 + number, 100 + number))
        picture.paste((255, 0, 0), square)
        picture.save(folder / "squares" / f"{number}.png")
    for number in range(40):
        Image.new("RGB", (50, 50), (number, 0, 0)).save(folder / "plain" / f"{number}.png")
        grey = 3 * number + 100
        Image.new("RGB", (50, 50), (grey, grey, grey)).save(folder / "plain" / f"g{number}.png")
    for number in range(4):
        Image.new("RGB", (50, 50), (255 - number, 0, 0)).save(folder / "plain" / f"r{number}.png")
    (folder / "probes.yaml").write_text(
        f'probes:\n  squares: "imagefolder:{folder}/squares"\n'
        f'  plain: "imagefolder:{folder}/plain"\n'
    )
    (folder / "models.yaml").write_text((offered / "models.yaml").read_text())
    return folder


async def test_crops_are_where_the_unit_responds_in_pictures_of_any_shape(
    tmp_path: Path, planted_probes: Path
) -> None:
    async with start_service(tmp_path, planted_probes) as service:
        probe = await service.freeze("squares", 0.0)
        shard = await service.shard("planted", ["red"], probe.manifest_ref, 0, probe.num_images)
        merged = await service.stub.MergeShards(pb.MergeShardsRequest(shard_refs=[shard]))
        (unit,) = await service.exemplars(
            "planted", merged.layers[0].index_ref, [0], replace(EXEMPLARS, num_exemplars=24)
        )
        crops = [one for one in unit.exemplars if one.HasField("box")]
        assert len(crops) >= 8
        seen = Preprocessing((48, 48), 56)
        for one in crops:
            box = from_message(one.box, Box)
            source = decode(service, one.source.ref)
            squares = [Box(*square) for size, square in RED if size == source.size]
            assert max(iou(box, square) for square in squares) > 0.7
            x0, y0, x1, y1 = seen.seen_region(*source.size)
            assert x0 - 1 <= box.x0 < box.x1 <= x1 + 1
            assert y0 - 1 <= box.y0 < box.y1 <= y1 + 1
            shown = np.asarray(decode(service, one.image.ref)).astype(int)
            red = (shown[:, :, 0] > 200) & (shown[:, :, 1] < 80)
            assert red.mean() > 0.6
        assert unit.exemplars[0].HasField("box")  # the square alone excites it more than the whole


async def test_dead_and_tied_units_cost_nothing_and_sparse_ones_show_what_there_is(
    tmp_path: Path, planted_probes: Path, measured: list[int]
) -> None:
    async with start_service(tmp_path, planted_probes) as service:
        probe = await service.freeze("plain", 0.0)
        shard = await service.shard("planted", ["scalars"], probe.manifest_ref, 0, 84)
        merged = await service.stub.MergeShards(pb.MergeShardsRequest(shard_refs=[shard]))
        measured.clear()
        index_ref = merged.layers[0].index_ref
        dead, tied = await service.exemplars("planted", index_ref, [0, 1])
        assert measured == []
        (sparse, live) = await service.exemplars("planted", index_ref, [2, 3])
    assert [one.activity for one in (dead, tied, sparse, live)] == [
        types_pb2.UNIT_ACTIVITY_DEAD,
        types_pb2.UNIT_ACTIVITY_TIED,
        types_pb2.UNIT_ACTIVITY_SPARSE,
        types_pb2.UNIT_ACTIVITY_LIVE,
    ]
    assert not dead.exemplars
    assert not tied.exemplars
    assert not dead.deciles
    assert not any(one.HasField("error") for one in (dead, tied, sparse, live))
    assert not dead.activations_ref
    assert not tied.activations_ref
    assert 3 <= len(sparse.exemplars) <= 4
    assert all(one.activation > 0 for one in sparse.exemplars)
    assert len(live.exemplars) == 10
    assert sparse.activations_ref
    assert live.activations_ref


# --- What the report and the scorer are given -----------------------------------------------------


async def test_deciles_rise_over_the_sample(service: Service) -> None:
    (found,) = await service.index("tiny", ["fc"])
    (unit,) = await service.exemplars("tiny", found.index_ref, [3])
    deciles = [one.decile for one in unit.deciles]
    assert deciles == sorted(deciles)
    assert set(deciles) == set(range(10))
    assert max(map(deciles.count, range(10))) <= EXEMPLARS.num_per_decile
    values = [one.activation for one in unit.deciles]
    assert values == sorted(values)
    manifest_ref = open_index(service.store, found.index_ref).record.manifest_ref
    manifest = Manifest.load(service.store, manifest_ref)
    sample = set(manifest.refs(manifest.select_indices()[: INDEX.num_sample]))
    assert {one.image.ref for one in unit.deciles} <= sample


async def test_activations_are_those_of_the_select_half_in_manifest_order(
    service: Service,
) -> None:
    (found,) = await service.index("tiny", ["fc"])
    (unit,) = await service.exemplars("tiny", found.index_ref, [3])
    values = service.store.get_array(unit.activations_ref)
    record = open_index(service.store, found.index_ref)
    manifest = Manifest.load(service.store, record.record.manifest_ref)
    select = manifest.select_indices()
    assert (values.shape, values.dtype) == ((len(select),), np.float32)
    best, activation = record.top_images(3)[0]
    assert select[values.argmax()] == best
    assert values.max() == pytest.approx(activation, rel=1e-3)


async def test_picture_that_is_gone_is_an_error_of_the_units_that_need_it(
    service: Service,
) -> None:
    (found,) = await service.index("tiny", ["conv2"])
    before = await service.exemplars("tiny", found.index_ref, range(12))
    record = open_index(service.store, found.index_ref)
    manifest = Manifest.load(service.store, record.record.manifest_ref)
    gone = record.top_images(0)[0][0]
    (ref,) = manifest.refs([gone])
    (service.store.root / "blobs" / ref[7:9] / ref[7:]).unlink()
    after = await service.exemplars("tiny", found.index_ref, range(12))
    num_failed = 0
    for unit, (old, new) in enumerate(zip(before, after, strict=True)):
        wanted = [number for number, _ in record.top_images(unit)[: EXEMPLARS.num_images]]
        if old.exemplars and gone in wanted:
            assert new.error.reason == "NotFound"
            num_failed += 1
        else:
            assert new == old
    assert 0 < num_failed < 12


# --- Ranking --------------------------------------------------------------------------------------


def candidate(image: int, place: int, activation: float) -> Candidate:
    return Candidate(image, place, Exemplar(f"{image}/{place}", f"{image}", None, activation))


def test_near_ties_are_broken_by_image_and_place_and_not_by_rounding_noise() -> None:
    one = [candidate(5, 0, 1.00001), candidate(2, 1, 1.00002), candidate(2, 0, 0.99999)]
    ranked = rank_candidates(one, replace(EXEMPLARS, max_per_source=0))
    assert [e.image for e in ranked] == ["2/0", "2/1", "5/0"]
    assert rank_candidates(one[::-1], replace(EXEMPLARS, max_per_source=0)) == ranked


def test_limit_per_source_lets_the_next_source_in() -> None:
    many = [candidate(1, place, 9.0 - place) for place in range(5)] + [candidate(2, 0, 1.0)]
    settings = replace(EXEMPLARS, max_per_source=2, num_exemplars=3)
    assert [e.image for e in rank_candidates(many, settings)] == ["1/0", "1/1", "2/0"]


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(123456.0, 123500.0), (-0.00012345, -0.0001234), (0.0, 0.0), (1.0, 1.0)],
)
def test_four_digits_count(value: float, rounded: float) -> None:
    assert round_value(value, NUM_DIGITS) == pytest.approx(rounded, rel=1e-4)


def test_deciles_of_a_small_sample_hold_each_image_once() -> None:
    values = np.array([3.0, 1.0, 2.0], np.float32)
    picked = pick_deciles(values, np.array([10, 20, 30]), 5)
    assert sorted(image for _, image, _ in picked) == [10, 20, 30]
    assert [value for _, _, value in picked] == [1.0, 2.0, 3.0]
    assert pick_deciles(np.empty(0, np.float32), np.empty(0, np.int64), 5) == []
