"""The index of a layer: one streaming pass for each shard of the probe set, then a merge.

A shard is a small JSON artifact that points to others: for each layer a `Summary`, and matrices of
float16 activations, one row an image, of the judge half and (where a method asks for it) of the
select half. Matrices are written as they come and never lie in memory as a whole.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from dnd.artifacts import ArtifactStore
from dnd.errors import InvalidInput, Unavailable
from dnd.images import decode_image
from dnd.profiles import IndexSettings
from dnd_services.activations.network import Network
from dnd_services.activations.probes import ProbeImages
from dnd_services.activations.rows import RowFile
from dnd_services.activations.statistics import RunningSummary

T = TypeVar("T")


class OnDevice(Protocol):
    """Runs a function that computes some pictures in the thread that owns the device."""

    def __call__(self, function: Callable[[], T], num_pictures: int) -> T: ...


BATCHES_AHEAD = 3


@dataclass(frozen=True)
class ShardLayer:
    """One layer of a shard; references into the artifact store, "" for what was not kept."""

    layer: str
    kind: str
    num_units: int
    summary_ref: str
    select_ref: str
    judge_ref: str


@dataclass(frozen=True)
class Shard:
    """A shard's part of the index."""

    manifest_ref: str
    model_digest: str
    pooling: str
    top_k: int
    num_sample: int
    keep_matrix: bool
    first_image: int
    num_images: int
    layers: tuple[ShardLayer, ...]

    def save(self, store: ArtifactStore) -> str:
        return store.put_bytes(json.dumps(asdict(self), sort_keys=True).encode())

    @classmethod
    def load(cls, store: ArtifactStore, ref: str) -> Shard:
        """The shard behind `ref`.

        Raises:
            NotFound: The store does not have it.
            InvalidInput: Something else is behind it.
        """
        try:
            data: dict[str, Any] = json.loads(store.get_bytes(ref))
            layers = tuple(ShardLayer(**layer) for layer in data.pop("layers"))
            return cls(**data, layers=layers)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InvalidInput(f"{ref} is no shard of an index: ask IndexShard for one.") from None


class _LayerPass:
    """What a pass over a shard collects of one layer."""

    def __init__(self, folder: Path, number: int, settings: IndexSettings) -> None:
        self._settings = settings
        self._summary: RunningSummary | None = None
        self._select = RowFile(folder / f"{number}-select.npy") if settings.keep_matrix else None
        self._judge = RowFile(folder / f"{number}-judge.npy")

    def update(self, values: Tensor, numbers: Tensor, judge: Tensor, sampled: Tensor) -> np.ndarray:
        """Adds a batch; the activations (images, units) as float16, for the matrices."""
        if self._summary is None:
            self._summary = RunningSummary(values.shape[1], self._settings.top_k, values.device)
        self._summary.update(values, numbers, judge, sampled)
        # Half precision ends at 65,504; what is above keeps its rank by being the largest there is.
        return values.clamp(-65504.0, 65504.0).half().cpu().numpy()

    def write(self, rows: np.ndarray, judge: np.ndarray) -> None:
        self._judge.append(rows[judge])
        if self._select is not None:
            self._select.append(rows[~judge])

    def save(self, layer: str, kind: str, store: ArtifactStore) -> ShardLayer:
        assert self._summary is not None
        summary = self._summary.finish()
        return ShardLayer(
            layer,
            kind,
            num_units=summary.mean.shape[1],
            summary_ref=store.put_bytes(summary.to_bytes()),
            select_ref="" if self._select is None else store.put_file(self._select.finish()),
            judge_ref=store.put_file(self._judge.finish()),
        )


def index_shard(
    network: Network,
    layers: Sequence[str],
    images: ProbeImages,
    manifest_ref: str,
    first_image: int,
    num_images: int,
    settings: IndexSettings,
    store: ArtifactStore,
    *,
    batch_size: int,
    pool: Executor,
    on_device: OnDevice,
    stopping: threading.Event,
) -> str:
    """One pass over `num_images` images from `first_image` on, hooks on all layers.

    Batches start with the shard, so that the same shard gives the same bits again; with a network
    of fixed batches, an image's activations do not depend on its shard either.

    Args:
        network: Its layers have been checked.
        images: The frozen probe set behind `manifest_ref`.
        batch_size: Images of one forward pass.
        pool: Reads, decodes and prepares images while the device computes.
        on_device: Runs one batch in the device thread.
        stopping: Set when the server shuts down.

    Returns:
        Reference of the shard.

    Raises:
        InvalidInput: The probe set does not have these images.
        Unavailable: The server is shutting down.
    """
    manifest = images.manifest
    if first_image < 0 or num_images < 1 or first_image + num_images > len(manifest):
        raise InvalidInput(
            f"Images {first_image} to {first_image + num_images - 1} are asked for: the probe set "
            f"has images 0 to {len(manifest) - 1}."
        )
    judge_flags = np.asarray(manifest.judge[first_image : first_image + num_images])
    sample = manifest.select_indices()[: settings.num_sample]
    last_sampled = int(sample[-1]) if len(sample) else -1

    def prepare(number: int) -> np.ndarray:
        return network.preprocessing.prepare(decode_image(images.read(number)))

    with store.drafts() as folder:
        passes = [_LayerPass(folder, place, settings) for place in range(len(layers))]

        def compute(numbers: list[int], pictures: list[np.ndarray]) -> list[np.ndarray]:
            outputs = network.measure(pictures, layers, settings.pooling)
            device = outputs[0].device
            index = torch.tensor(numbers, device=device)
            judge = torch.from_numpy(judge_flags[index.cpu().numpy() - first_image]).to(device)
            sampled = ~judge & (index <= last_sampled)
            return [
                one.update(values, index, judge, sampled)
                for one, values in zip(passes, outputs, strict=True)
            ]

        numbers = range(first_image, first_image + num_images)
        for batch, pictures in _prepared_batches(numbers, batch_size, prepare, pool):
            if stopping.is_set():
                raise Unavailable("The server is shutting down; another one indexes this shard.")
            rows = on_device(partial(compute, batch, pictures), len(batch))
            judge = judge_flags[np.array(batch) - first_image]
            for one, part in zip(passes, rows, strict=True):
                one.write(part, judge)
        shard = Shard(
            manifest_ref=manifest_ref,
            model_digest=network.digest,
            pooling=settings.pooling.value,
            top_k=settings.top_k,
            num_sample=settings.num_sample,
            keep_matrix=settings.keep_matrix,
            first_image=first_image,
            num_images=num_images,
            layers=tuple(
                one.save(layer, network.kind_of(layer).value, store)
                for one, layer in zip(passes, layers, strict=True)
            ),
        )
    return shard.save(store)


def _prepared_batches(
    numbers: Sequence[int], batch_size: int, prepare: Callable[[int], np.ndarray], pool: Executor
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Batches in order, a few of them being prepared ahead, so that decoding costs no time."""
    ahead: deque[tuple[int, Future[np.ndarray]]] = deque()
    upcoming = iter(numbers)
    try:
        while True:
            while (
                len(ahead) < BATCHES_AHEAD * batch_size and (n := next(upcoming, None)) is not None
            ):
                ahead.append((n, pool.submit(prepare, n)))
            if not ahead:
                return
            batch = [ahead.popleft() for _ in range(min(batch_size, len(ahead)))]
            yield [number for number, _ in batch], [future.result() for _, future in batch]
    finally:
        for _, future in ahead:
            future.cancel()
