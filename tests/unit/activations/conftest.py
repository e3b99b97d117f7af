"""Folders of pictures, networks on the CPU, and backends for the tests of the activations."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest
import pytest_asyncio
import torch
from local_server import serve
from PIL import Image
from processes import Running, run_service
from tiny import networks

from dnd.artifacts import ArtifactStore
from dnd.convert import enum_value, to_message
from dnd.profiles import DEFAULT, ExemplarSettings, IndexSettings, Pooling
from dnd.serving import Metrics
from dnd.serving.placement import Placement
from dnd.types import LayerIndex
from dnd.v1 import activations_pb2 as pb
from dnd.v1 import activations_pb2_grpc, types_pb2
from dnd_services.activations.__main__ import ActivationsSettings, build
from dnd_services.activations.index import index_shard
from dnd_services.activations.merge import merge_shards
from dnd_services.activations.network import Network
from dnd_services.activations.probes import ProbeImages, freeze_probe_set
from dnd_services.activations.registry import Spec
from dnd_services.activations.targets import Target

T = TypeVar("T")

BATCH = 8
CPU = Placement(torch.device("cpu"), torch.float32)


def draw(number: int, size: tuple[int, int] = (44, 40)) -> Image.Image:
    """A random smooth picture, the same for the same number."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def write_pictures(folder: Path, numbers: Sequence[int]) -> Path:
    """Pictures of these numbers, under names that nobody else should ever see."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        draw(number).save(folder / f"secretname{number:03d}.png")
    return folder


@contextmanager
def run_activations(folder: Path) -> Iterator[Running]:
    """The service as a process, with the network "vit" and 20 probe images, "few"."""
    models, probes = folder / "models.yaml", folder / "probes.yaml"
    models.write_text(f'models: {{vit: {{spec: "hf:{networks.save_vit(folder / "vit")}"}}}}')
    write_pictures(folder / "pictures", range(20))
    probes.write_text('probes: {few: "imagefolder:pictures"}')
    with run_service(
        "activations", folder, models=models, probes=probes, max_batch=4, threads=1
    ) as service:
        yield service


def on_device(function: Callable[[], T], num_pictures: int) -> T:
    return function()


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 pictures."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), range(60))


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture(scope="session")
def cnn() -> Network:
    """The random CNN, every pass padded to one batch."""
    return Network("tiny", networks.load_cnn(), CPU, BATCH)


@pytest.fixture(scope="session")
def planted() -> Network:
    return Network("planted", networks.load_planted(), CPU, BATCH)


class Indexer:
    """Freezes folders, indexes and merges them, without a server."""

    def __init__(self, store: ArtifactStore, pool: ThreadPoolExecutor) -> None:
        self.store = store
        self.pool = pool
        self.stopping = threading.Event()

    def freeze(self, *folders: Path, judge_fraction: float = 0.2) -> Any:
        specs = [Spec("imagefolder", str(folder)) for folder in folders]
        return freeze_probe_set(specs, judge_fraction, self.store, self.pool, self.stopping)

    def shard(
        self,
        network: Network,
        layers: Sequence[str],
        manifest_ref: str,
        first: int,
        num: int,
        settings: IndexSettings,
        device: Any = on_device,
    ) -> str:
        images = ProbeImages(manifest_ref, self.store)
        return index_shard(
            network,
            layers,
            images,
            manifest_ref,
            first,
            num,
            settings,
            self.store,
            batch_size=BATCH,
            pool=self.pool,
            on_device=device,
            stopping=self.stopping,
        )

    def index(
        self,
        network: Network,
        layers: Sequence[str],
        folder: Path,
        settings: IndexSettings | None = None,
        shards: int = 1,
    ) -> list[LayerIndex]:
        """One index for each layer, from this many shards."""
        probe = self.freeze(folder)
        edges = [probe.num_images * n // shards for n in range(shards + 1)]
        refs = [
            self.shard(
                network, layers, probe.manifest_ref, a, b - a, settings or IndexSettings(top_k=11)
            )
            for a, b in pairwise(edges)
        ]
        return merge_shards(refs, self.store)


@pytest.fixture
def indexer(store: ArtifactStore, pool: ThreadPoolExecutor) -> Indexer:
    return Indexer(store, pool)


def as_network(module: torch.nn.Module, target: Target, fixed_batch: int = 0) -> Network:
    """`module` with the preprocessing of `target`."""
    return Network("test", Target(module, target.preprocessing), CPU, fixed_batch)


# --- The whole service ----------------------------------------------------------------------------

INDEX = IndexSettings(top_k=20, num_sample=40)
EXEMPLARS = replace(DEFAULT.exemplars, size=64, max_crops=2)


class Service:
    """A running activations service and a stub for it, with what a caller of it would write."""

    def __init__(self, channel: grpc.aio.Channel, store: ArtifactStore, metrics: Metrics) -> None:
        self.stub = activations_pb2_grpc.ActivationsServiceStub(channel)
        self.store = store
        self.metrics = metrics

    def put(self, data: bytes) -> types_pb2.Image:
        return types_pb2.Image(ref=self.store.put_bytes(data))

    async def freeze(self, probe: str, judge_fraction: float = 0.2) -> pb.GetProbeSetResponse:
        return await self.stub.GetProbeSet(
            pb.GetProbeSetRequest(probe=probe, judge_fraction=judge_fraction)
        )

    async def shard(
        self, model: str, layers: Sequence[str], manifest_ref: str, first: int, num: int
    ) -> str:
        answer = await self.stub.IndexShard(
            pb.IndexShardRequest(
                model=model,
                layers=layers,
                manifest_ref=manifest_ref,
                first_image=first,
                num_images=num,
                settings=to_message(INDEX, pb.IndexSettings),
            )
        )
        return str(answer.shard_ref)

    async def index(
        self, model: str, layers: Sequence[str], probe: str = "pictures"
    ) -> list[pb.LayerIndex]:
        frozen = await self.freeze(probe)
        ref = await self.shard(model, layers, frozen.manifest_ref, 0, frozen.num_images)
        answer = await self.stub.MergeShards(pb.MergeShardsRequest(shard_refs=[ref]))
        return list(answer.layers)

    async def exemplars(
        self,
        model: str,
        index_ref: str,
        units: Sequence[int],
        settings: ExemplarSettings = EXEMPLARS,
    ) -> list[pb.UnitExemplars]:
        answer = await self.stub.SelectExemplars(
            pb.SelectExemplarsRequest(
                model=model,
                index_ref=index_ref,
                units=units,
                settings=to_message(settings, pb.ExemplarSettings),
            )
        )
        return list(answer.units)

    async def measure(
        self,
        model: str,
        layers: Sequence[str],
        sets: Sequence[pb.ImageSet],
        pooling: Pooling = Pooling.MEAN,
        show_at: int = 0,
    ) -> list[pb.Measurement]:
        request = pb.MeasureImagesRequest(model=model, layers=layers, sets=sets, show_at=show_at)
        request.pooling = enum_value(pooling, pb.DESCRIPTOR.enum_types_by_name["Pooling"])
        return list((await self.stub.MeasureImages(request)).measurements)


@pytest.fixture(scope="session")
def offered(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A folder with the models.yaml and probes.yaml of the tests."""
    folder = tmp_path_factory.mktemp("offered")
    vit = networks.save_vit(folder / "vit")
    (folder / "models.yaml").write_text(
        "models:\n"
        '  tiny: {spec: "python:tiny.networks:load_cnn"}\n'
        '  planted: {spec: "python:tiny.networks:load_planted"}\n'
        f'  vit: {{spec: "hf:{vit}"}}\n'
    )
    (folder / "probes.yaml").write_text(
        f'probes:\n  pictures: "imagefolder:{pictures}"\n  more: "imagefolder:{folder}/more"\n'
    )
    write_pictures(folder / "more", range(50, 70))
    return folder


@asynccontextmanager
async def start_service(folder: Path, offered: Path, **settings: Any) -> AsyncIterator[Service]:
    """The service over a store in `folder`, as its process would build it."""
    names: dict[str, Any] = {
        "models": str(offered / "models.yaml"),
        "probes": str(offered / "probes.yaml"),
    }
    chosen = ActivationsSettings(
        artifacts=str(folder / "store"),
        max_batch=BATCH,
        fixed_batch=True,
        max_wait_ms=1.0,
        decoders=2,
        **names | settings,
    )
    metrics = Metrics()
    async with serve(build(chosen, metrics), metrics) as channel:
        yield Service(channel, ArtifactStore(folder / "store"), metrics)


@pytest_asyncio.fixture
async def service(tmp_path: Path, offered: Path) -> AsyncIterator[Service]:
    async with start_service(tmp_path, offered) as running:
        yield running


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pictures of each pass that a network runs from now on."""
    counts: list[int] = []
    measure = Network.measure

    def count(self: Network, pictures: Any, *args: Any) -> Any:
        counts.append(len(pictures))
        return measure(self, pictures, *args)

    monkeypatch.setattr(Network, "measure", count)
    return counts
