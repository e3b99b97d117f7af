"""Memory of building an index: it must not grow with the number of probe images.

    python -m benchmarks.index_memory [number of images ...]

Draws random pictures, builds the index of a convolution with 1,024 units and of the layers around
it over 2,000 and over 20,000 of them, each in a process of its own, and prints the peak memory.
If activations were kept in memory, the larger set would need 80 MB more.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

T = TypeVar("T")

SIZES = (2_000, 20_000)
SIDE = 32
NUM_UNITS = 1024
BATCH = 32
CONSOLE = Console(width=100)


@dataclass(frozen=True)
class Measured:
    """What one process needed; bytes and seconds."""

    num_images: int
    num_shards: int
    start_rss: int
    peak_rss: int
    matrix_bytes: int
    seconds: float


def build_index(pictures: Path, home: Path) -> Measured:
    """Freezes `pictures`, indexes them in shards and merges these, as the service does."""
    # In the measured process only: the peak of a process counts from that of its parent.
    import torch

    from dnd.artifacts import ArtifactStore
    from dnd.profiles import DEFAULT
    from dnd.serving.placement import Placement
    from dnd_services.activations.index import index_shard
    from dnd_services.activations.merge import merge_shards, open_index
    from dnd_services.activations.network import Network
    from dnd_services.activations.probes import ProbeImages, freeze_probe_set
    from dnd_services.activations.registry import Spec
    from dnd_services.activations.targets import Preprocessing, Target

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        # Few positions: the allocator of the C library holds on to up to twice the largest block
        # that was freed; an output of many megabytes would bury in that what is to be seen here.
        torch.nn.Conv2d(3, 64, 3, stride=8),
        torch.nn.ReLU(),
        torch.nn.Conv2d(64, NUM_UNITS, 1),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(NUM_UNITS, 10),
    )
    seen = Preprocessing((SIDE, SIDE), shortest_edge=SIDE)
    cpu = Placement(torch.device("cpu"), torch.float32)
    network = Network("random", Target(module, seen), cpu, fixed_batch=BATCH)
    layers = ("0", "2", "5")
    network.check_layers(layers)
    store = ArtifactStore(home)
    settings = DEFAULT.index
    start_rss = peak_rss()
    began = time.monotonic()

    def on_device(function: Callable[[], T], num_pictures: int) -> T:
        return function()

    with ThreadPoolExecutor(2) as pool:
        spec = Spec("imagefolder", str(pictures))
        probe = freeze_probe_set([spec], settings.judge_fraction, store, pool, Event())
        images = ProbeImages(probe.manifest_ref, store)
        shards = [
            index_shard(
                network,
                layers,
                images,
                probe.manifest_ref,
                first,
                min(settings.shard_images, probe.num_images - first),
                settings,
                store,
                batch_size=BATCH,
                pool=pool,
                on_device=on_device,
                stopping=Event(),
            )
            for first in range(0, probe.num_images, settings.shard_images)
        ]
    records = [open_index(store, one.index_ref).record for one in merge_shards(shards, store)]
    return Measured(
        num_images=probe.num_images,
        num_shards=len(shards),
        start_rss=start_rss,
        peak_rss=peak_rss(),
        matrix_bytes=sum(
            store.get_array(ref).nbytes for r in records for ref in (r.select_ref, r.judge_ref)
        ),
        seconds=time.monotonic() - began,
    )


def peak_rss() -> int:
    """The largest memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def draw_pictures(folder: Path, first: int, last: int) -> None:
    """Random pictures, all different, 1,000 in a folder."""
    for number in range(first, last):
        if number % 1000 == 0:
            (folder / str(number // 1000)).mkdir(parents=True)
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        path = folder / str(number // 1000) / f"{number % 1000}.png"
        coarse.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(path, compress_level=1)


def measure(pictures: Path) -> Measured:
    """Builds the index over `pictures` in a process of its own."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "benchmarks.index_memory", "--build", str(pictures), home]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return Measured(**answer)


def main(sizes: tuple[int, ...]) -> None:
    table = Table("images", "shards", "matrices, MB", "before, MB", "peak, MB", "seconds")
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        pictures, drawn = Path(folder) / "pictures", 0
        for size in sorted(sizes):
            draw_pictures(pictures, drawn, size)
            drawn = size
            found = measure(pictures)
            peaks.append(found.peak_rss)
            table.add_row(
                f"{found.num_images:,}",
                str(found.num_shards),
                f"{found.matrix_bytes / 1e6:.0f}",
                f"{found.start_rss / 1e6:.0f}",
                f"{found.peak_rss / 1e6:.1f}",
                f"{found.seconds:.0f}",
            )
    CONSOLE.print(table)
    CONSOLE.print(f"peak memory of the largest set over the smallest: {peaks[-1] / peaks[0]:.3f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--build"]:
        print(json.dumps(asdict(build_index(Path(sys.argv[2]), Path(sys.argv[3])))))
    else:
        main(tuple(map(int, sys.argv[1:])) or SIZES)
