"""The index of real pictures: equal to one pass over them all, however the work was cut up."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import networks
from unit.activations.conftest import BATCH, CPU, Indexer, draw, on_device, write_pictures

from dnd.artifacts import ArtifactStore
from dnd.errors import FailedPrecondition, InvalidInput, NotFound, Unavailable
from dnd.images import decode_image
from dnd.manifest import Manifest
from dnd.profiles import IndexSettings, Pooling
from dnd_services.activations.index import Shard
from dnd_services.activations.loaders import load_target
from dnd_services.activations.merge import LayerRecord, merge_shards, open_index
from dnd_services.activations.network import Network
from dnd_services.activations.registry import Spec
from dnd_services.activations.statistics import JUDGE, SELECT

LAYERS = ("conv1", "conv2", "fc")
SETTINGS = IndexSettings(top_k=11, num_sample=20)


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Network:
    folder = networks.save_vit(tmp_path_factory.mktemp("vit"))
    return Network("vit", load_target(Spec("hf", str(folder))), CPU, BATCH)


def measure_all(
    network: Network, layer: str, manifest: Manifest, store: ArtifactStore, pooling: Pooling
) -> np.ndarray:
    """Activations of all images, (images, units), one pass for each of them."""
    rows = []
    for ref in manifest.refs():
        pixels = network.preprocessing.prepare(decode_image(store.get_bytes(ref)))
        (values,) = network.measure([pixels], [layer], pooling)
        rows.append(values.numpy()[0])
    return np.stack(rows)


def check_record(record: LayerRecord, values: np.ndarray, manifest: Manifest) -> None:
    """Everything in `record` equals what follows from `values`, (images, units)."""
    select, judge = manifest.select_indices(), manifest.judge_indices()
    summary = record.summary
    np.testing.assert_allclose(summary.mean[SELECT], values[select].mean(0), atol=1e-5)
    np.testing.assert_allclose(summary.mean[JUDGE], values[judge].mean(0), atol=1e-5)
    for unit in range(values.shape[1]):
        order = sorted(select, key=lambda n: (-values[n, unit], n))[: SETTINGS.top_k]
        assert summary.top_images[unit].tolist() == order
        np.testing.assert_array_equal(summary.top_values[unit], values[order, unit])
        kept = record.select_activations(unit)
        assert kept is not None
        np.testing.assert_allclose(kept, values[select, unit], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(summary.sample_images, select[: SETTINGS.num_sample])


@pytest.mark.parametrize(
    ("layer", "pooling"),
    [
        ("conv2", Pooling.MEAN),
        ("conv2", Pooling.MAX),
        ("fc", Pooling.MEAN),
        ("fc", Pooling.MAX),
    ],
)
def test_index_says_what_every_single_image_says(
    layer: str, pooling: Pooling, cnn: Network, pictures: Path, indexer: Indexer
) -> None:
    settings = IndexSettings(top_k=11, num_sample=20, pooling=pooling)
    (found,) = indexer.index(cnn, [layer], pictures, settings)
    record = open_index(indexer.store, found.index_ref)
    manifest = Manifest.load(indexer.store, record.record.manifest_ref)
    assert len(manifest) == 60
    check_record(record, measure_all(cnn, layer, manifest, indexer.store, pooling), manifest)


@pytest.mark.parametrize("pooling", list(Pooling))
def test_token_layers_are_indexed_with_each_pooling(
    pooling: Pooling, vit: Network, pictures: Path, indexer: Indexer
) -> None:
    layer = next(one.path for one in vit.layers if one.output_shape == (17, 16))
    settings = IndexSettings(top_k=11, num_sample=20, pooling=pooling)
    (found,) = indexer.index(vit, [layer], pictures, settings)
    record = open_index(indexer.store, found.index_ref)
    assert (record.record.kind, record.pooling) == ("tokens", pooling)
    manifest = Manifest.load(indexer.store, record.record.manifest_ref)
    check_record(record, measure_all(vit, layer, manifest, indexer.store, pooling), manifest)


def test_class_token_of_a_convolution_is_refused(
    cnn: Network, pictures: Path, indexer: Indexer
) -> None:
    with pytest.raises(InvalidInput, match="use 'mean' or 'max'"):
        indexer.index(cnn, ["conv1"], pictures, IndexSettings(top_k=11, pooling=Pooling.CLS))


def test_layers_in_one_pass_equal_single_passes(
    cnn: Network, pictures: Path, indexer: Indexer
) -> None:
    together = indexer.index(cnn, LAYERS, pictures, SETTINGS)
    alone = [indexer.index(cnn, [layer], pictures, SETTINGS)[0] for layer in LAYERS]
    assert [one.layer for one in together] == list(LAYERS)
    assert together == alone  # references are digests of the contents


def test_any_sharding_and_any_order_gives_the_same(
    cnn: Network, pictures: Path, indexer: Indexer
) -> None:
    probe = indexer.freeze(pictures)
    whole = indexer.index(cnn, LAYERS, pictures, SETTINGS)
    rng = random.Random(3)
    for num_cuts in (1, 4):
        edges = [0, *sorted(rng.sample(range(1, 60), num_cuts)), 60]
        refs = [
            indexer.shard(cnn, LAYERS, probe.manifest_ref, a, b - a, SETTINGS)
            for a, b in itertools.pairwise(edges)
        ]
        merged = merge_shards(refs, indexer.store)
        rng.shuffle(refs)
        assert merge_shards(refs, indexer.store) == merged
        for one, other in zip(merged, whole, strict=True):
            assert one.activities == other.activities
            first = open_index(indexer.store, one.index_ref)
            second = open_index(indexer.store, other.index_ref)
            assert first.record.select_ref == second.record.select_ref
            assert first.record.judge_ref == second.record.judge_ref
            for name in ("count", "low", "high", "histogram", "top_values", "top_images"):
                np.testing.assert_array_equal(
                    getattr(first.summary, name), getattr(second.summary, name)
                )
            np.testing.assert_allclose(first.summary.mean, second.summary.mean, rtol=1e-9)


def test_same_pass_again_gives_the_same_bits(
    cnn: Network, pictures: Path, indexer: Indexer
) -> None:
    ref = indexer.freeze(pictures).manifest_ref
    shards = {indexer.shard(cnn, LAYERS, ref, 5, 30, SETTINGS) for _ in range(2)}
    assert len(shards) == 1


def test_judge_half_is_in_its_own_matrix_and_nowhere_else(
    cnn: Network, pictures: Path, indexer: Indexer
) -> None:
    (found,) = indexer.index(cnn, ["fc"], pictures, SETTINGS, shards=3)
    record = open_index(indexer.store, found.index_ref)
    manifest = Manifest.load(indexer.store, record.record.manifest_ref)
    values = measure_all(cnn, "fc", manifest, indexer.store, Pooling.MEAN)
    judge = indexer.store.get_array(record.record.judge_ref)
    assert judge.shape == (6, int(manifest.judge.sum()))
    np.testing.assert_allclose(judge, values[manifest.judge].T, rtol=1e-3, atol=1e-4)
    assert not np.isin(record.summary.top_images, manifest.judge_indices()).any()
    assert not np.isin(record.summary.sample_images, manifest.judge_indices()).any()


def test_probe_set_without_a_judge_half_is_indexed(
    cnn: Network, pictures: Path, indexer: Indexer
) -> None:
    probe = indexer.freeze(pictures, judge_fraction=0.0)
    shard = indexer.shard(cnn, ["fc"], probe.manifest_ref, 0, 60, SETTINGS)
    record = open_index(indexer.store, merge_shards([shard], indexer.store)[0].index_ref)
    assert indexer.store.get_array(record.record.judge_ref).shape == (6, 0)
    assert record.summary.count.tolist() == [60, 0]


def test_matrix_of_the_select_half_is_left_out_on_demand(
    cnn: Network, pictures: Path, indexer: Indexer
) -> None:
    settings = IndexSettings(top_k=11, num_sample=0, keep_matrix=False)
    (found,) = indexer.index(cnn, ["fc"], pictures, settings, shards=2)
    record = open_index(indexer.store, found.index_ref)
    assert record.select_activations(0) is None
    assert record.record.judge_ref
    assert len(record.summary.sample_images) == 0


def test_values_beyond_half_precision_stay_finite_and_on_top(
    pictures: Path, indexer: Indexer
) -> None:
    class Loud(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = torch.nn.Identity()

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.out(inputs.mean((2, 3)) * 1e7)

    target = networks.load_cnn()
    loud = Network("loud", type(target)(Loud(), target.preprocessing), CPU, BATCH)
    (found,) = indexer.index(loud, ["out"], pictures, SETTINGS)
    record = open_index(indexer.store, found.index_ref)
    kept = record.select_activations(0)
    assert kept is not None
    assert np.isfinite(kept).all()
    assert np.abs(kept).max() == 65504
    assert record.summary.high.max() > 65504


# --- Resuming -------------------------------------------------------------------------------------


def test_index_is_resumed_from_the_shards_that_are_there(
    cnn: Network, pictures: Path, indexer: Indexer
) -> None:
    """A pass that is cut off leaves nothing behind; what was finished before counts."""
    ref = indexer.freeze(pictures).manifest_ref
    done = indexer.shard(cnn, LAYERS, ref, 0, 30, SETTINGS)
    num_batches = 0

    def stop_in_the_middle(function: object, num_pictures: int) -> object:
        nonlocal num_batches
        num_batches += 1
        if num_batches == 2:
            indexer.stopping.set()
        return on_device(function, num_pictures)  # type: ignore[arg-type]

    with pytest.raises(Unavailable, match="shutting down"):
        indexer.shard(cnn, LAYERS, ref, 30, 30, SETTINGS, device=stop_in_the_middle)
    assert num_batches == 2
    assert not list(indexer.store.root.glob("draft-*"))
    with pytest.raises(InvalidInput, match="end at image 30 of 60"):
        merge_shards([done], indexer.store)

    indexer.stopping.clear()
    rest = indexer.shard(cnn, LAYERS, ref, 30, 30, SETTINGS)
    whole = [indexer.shard(cnn, LAYERS, ref, first, 30, SETTINGS) for first in (0, 30)]
    assert [done, rest] == whole
    assert merge_shards([rest, done], indexer.store) == merge_shards(whole, indexer.store)


def test_failing_pass_leaves_no_drafts(cnn: Network, pictures: Path, indexer: Indexer) -> None:
    def fail(function: object, num_pictures: int) -> object:
        raise RuntimeError("device lost")

    ref = indexer.freeze(pictures).manifest_ref
    with pytest.raises(RuntimeError, match="device lost"):
        indexer.shard(cnn, LAYERS, ref, 0, 60, SETTINGS, device=fail)
    assert not list(indexer.store.root.glob("draft-*"))


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "num"), [(-1, 5), (0, 0), (0, 61), (60, 1), (55, 6)])
def test_images_that_the_probe_set_does_not_have_are_refused(
    first: int, num: int, cnn: Network, pictures: Path, indexer: Indexer
) -> None:
    ref = indexer.freeze(pictures).manifest_ref
    with pytest.raises(InvalidInput, match="has images 0 to 59"):
        indexer.shard(cnn, ["fc"], ref, first, num, SETTINGS)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([(0, 20), (30, 30)], "from 20 on are missing"),
        ([(0, 40), (30, 30)], "from 30 on are in more than one shard"),
        ([(0, 30), (0, 30)], "in more than one shard"),
        ([(10, 50)], "from 0 on are missing"),
        ([(0, 59)], "end at image 59 of 60"),
    ],
)
def test_shards_that_do_not_cover_the_probe_set_once_are_refused(
    ranges: list[tuple[int, int]], message: str, cnn: Network, pictures: Path, indexer: Indexer
) -> None:
    ref = indexer.freeze(pictures).manifest_ref
    shards = [indexer.shard(cnn, ["fc"], ref, first, num, SETTINGS) for first, num in ranges]
    with pytest.raises(InvalidInput, match=message):
        merge_shards(shards, indexer.store)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"pooling": Pooling.MAX}, "differ in pooling"),
        ({"top_k": 12}, "differ in top_k"),
        ({"num_sample": 3}, "differ in num_sample"),
        ({"keep_matrix": False}, "keep the activations, others do not"),
    ],
)
def test_shards_of_other_settings_are_refused(
    other: dict[str, object], message: str, cnn: Network, pictures: Path, indexer: Indexer
) -> None:
    ref = indexer.freeze(pictures).manifest_ref
    base = {"top_k": 11, "num_sample": 20}
    shards = [
        indexer.shard(cnn, ["fc"], ref, 0, 30, IndexSettings(**base)),  # type: ignore[arg-type]
        indexer.shard(cnn, ["fc"], ref, 30, 30, IndexSettings(**base | other)),  # type: ignore
    ]
    with pytest.raises(InvalidInput, match=message):
        merge_shards(shards, indexer.store)


def test_shards_of_other_layers_or_networks_are_refused(
    cnn: Network, planted: Network, pictures: Path, indexer: Indexer
) -> None:
    ref = indexer.freeze(pictures).manifest_ref
    first = indexer.shard(cnn, ["fc"], ref, 0, 30, SETTINGS)
    layers = indexer.shard(cnn, ["conv1"], ref, 30, 30, SETTINGS)
    with pytest.raises(InvalidInput, match="different layers"):
        merge_shards([first, layers], indexer.store)
    network = indexer.shard(planted, ["scalars"], ref, 30, 30, SETTINGS)
    with pytest.raises(InvalidInput, match="differ in model_digest"):
        merge_shards([first, network], indexer.store)


@pytest.mark.parametrize("data", [b"", b"text", b"[1, 2]", b'{"layers": []}', b'"layers"'])
def test_something_else_is_no_shard_and_no_index(data: bytes, store: ArtifactStore) -> None:
    ref = store.put_bytes(data)
    with pytest.raises(InvalidInput, match="IndexShard"):
        Shard.load(store, ref)
    with pytest.raises(InvalidInput, match="MergeShards"):
        open_index(store, ref)
    with pytest.raises(NotFound):
        Shard.load(store, "sha256:" + "0" * 64)


def test_shard_is_a_small_artifact_that_points_to_others(
    cnn: Network, pictures: Path, indexer: Indexer
) -> None:
    ref = indexer.freeze(pictures).manifest_ref
    data = indexer.store.get_bytes(indexer.shard(cnn, LAYERS, ref, 0, 60, SETTINGS))
    assert len(data) < 2000
    assert "secretname" not in data.decode()
    assert all(layer["summary_ref"] in indexer.store for layer in json.loads(data)["layers"])


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_picture_that_changes_after_freezing_is_named_by_its_number_only(
    change: str, cnn: Network, tmp_path: Path, indexer: Indexer
) -> None:
    folder = write_pictures(tmp_path / "few", range(5))
    ref = indexer.freeze(folder).manifest_ref
    for path in folder.iterdir():
        path.unlink()
        if change == "replaced":
            draw(77).save(path)
    num_files = sum(1 for _ in indexer.store.root.rglob("*"))
    with pytest.raises(FailedPrecondition, match="Image 0 of the probe set") as caught:
        indexer.shard(cnn, ["fc"], ref, 0, 5, SETTINGS)
    assert "secretname" not in str(caught.value)
    assert sum(1 for _ in indexer.store.root.rglob("*")) == num_files
