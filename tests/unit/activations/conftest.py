"""Folders of pictures, networks on the CPU, and backends for the tests of the activations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import networks

from dnd.artifacts import ArtifactStore
from dnd.profiles import IndexSettings
from dnd.serving.placement import Placement
from dnd.types import LayerIndex
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
