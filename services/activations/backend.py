"""What the servicer asks: networks that are loaded, and work that outlives an impatient caller."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from dnd import keys
from dnd.bucket_artifacts import open_artifacts
from dnd.profiles import ExemplarSettings, IndexSettings, Pooling
from dnd.serving import Metrics
from dnd.serving.inputs import check_digest
from dnd.serving.placement import Placement, place_model
from dnd.settings import ModelServerSettings
from dnd.types import LayerIndex, Measurement, OrError, ProbeSet, TopImages, UnitExemplars
from dnd.v1 import activations_pb2
from dnd_services.activations.exemplars import ExemplarSelector, list_top_images
from dnd_services.activations.index import index_shard
from dnd_services.activations.loaders import load_target
from dnd_services.activations.measure import measure_sets
from dnd_services.activations.merge import describe, merge_shards, open_index
from dnd_services.activations.network import Network
from dnd_services.activations.passes import Caller, Passes
from dnd_services.activations.probes import ProbeImages, freeze_probe_set
from dnd_services.activations.registry import Registry, Spec

log = logging.getLogger(__name__)

T = TypeVar("T")

SOURCES_UNDER_WAY = 32
"""Source images whose crops are computed at the same time, over all requests."""


class Backend:
    """Loaded networks and the work on them.

    Args:
        settings: Device, number type, batches.
        registry: What may be loaded.
        max_models: Networks kept in memory; the one that was asked for longest ago goes first.
        num_decoders: Threads that read, decode and encode images.
        metrics: Where batches are counted.
    """

    def __init__(
        self,
        settings: ModelServerSettings,
        registry: Registry,
        *,
        max_models: int,
        num_decoders: int,
        metrics: Metrics,
    ) -> None:
        self.registry = registry
        self.store = open_artifacts(settings.artifacts)
        self.passes = Passes(settings, metrics)
        self._settings = settings
        self._placement: Placement = place_model(settings)
        self._max_models = max_models
        self._networks: OrderedDict[Spec, Network] = OrderedDict()
        self._loading = asyncio.Lock()
        self._pool = ThreadPoolExecutor(num_decoders, thread_name_prefix="pictures")
        self._under_way = asyncio.Semaphore(SOURCES_UNDER_WAY)
        self._one_pass = asyncio.Lock()
        self._jobs: dict[str, asyncio.Task[Any]] = {}
        self._stopping = threading.Event()

    async def network(self, name: str, layers: Sequence[str] = (), digest: str = "") -> Network:
        """The network of a name, loaded when it is first asked for.

        Raises:
            UnknownName: Nothing has this name, or it does not have one of the layers.
            DigestMismatch: The caller expects other weights.
        """
        spec = self.registry.find_model(name)
        network = self._networks.get(spec) or await self._load_once(spec)
        if spec in self._networks:
            self._networks.move_to_end(spec)
        check_digest(digest, network.digest)
        network.check_layers(layers)
        return network

    async def _load_once(self, spec: Spec) -> Network:
        async with self._loading:
            if spec in self._networks:
                return self._networks[spec]
            network = await asyncio.to_thread(self._load, spec)
            await self.passes.run_alone(lambda: network.layers)  # found by a forward pass
            self._networks[spec] = network
            while len(self._networks) > self._max_models:
                gone, _ = self._networks.popitem(last=False)
                log.info("let go of %s: at most %d networks are kept", gone, self._max_models)
            return network

    async def freeze_probe_set(self, probe: str, judge_fraction: float) -> ProbeSet:
        """The frozen probe set of a name."""
        specs = self.registry.find_probe(probe)
        key = f"probe {judge_fraction} {specs}"
        return await self._finish_once(
            key,
            lambda: freeze_probe_set(specs, judge_fraction, self.store, self._pool, self._stopping),
        )

    async def index_shard(
        self,
        network: Network,
        layers: tuple[str, ...],
        manifest_ref: str,
        first_image: int,
        num_images: int,
        settings: IndexSettings,
    ) -> str:
        """The shard's reference, from an earlier pass if there was one.

        A pass goes on when its caller has gone, so that the next one finds it done.
        """
        kept = (settings.pooling, settings.top_k, settings.num_sample, settings.keep_matrix)
        key = keys.stage_key(
            "index", "shard", network.digest, layers, manifest_ref, first_image, num_images, kept
        )
        loop = asyncio.get_running_loop()

        def on_device(function: Callable[[], T], num_pictures: int) -> T:
            running = self.passes.run_alone(function, num_pictures)
            return asyncio.run_coroutine_threadsafe(running, loop).result()

        def run() -> str:
            if known := self.store.recall(key):  # while this one waited for its turn
                return known
            images = ProbeImages(manifest_ref, self.store)
            ref = index_shard(
                network,
                layers,
                images,
                manifest_ref,
                first_image,
                num_images,
                settings,
                self.store,
                batch_size=self._settings.max_batch,
                pool=self._pool,
                on_device=on_device,
                stopping=self._stopping,
            )
            self.store.remember(key, ref)
            return ref

        if key not in self._jobs and (known := await asyncio.to_thread(self.store.recall, key)):
            return known
        return await self._finish_once(key, run, alone=True)

    async def merge_shards(self, shard_refs: Sequence[str]) -> list[LayerIndex]:
        """One index for each layer."""
        return await self._finish_once(
            f"merge {sorted(shard_refs)}", lambda: merge_shards(shard_refs, self.store)
        )

    async def get_index(self, index_ref: str) -> LayerIndex:
        """What an index holds."""
        index = await asyncio.to_thread(open_index, self.store, index_ref)
        return describe(index.record, index_ref, index.activities)

    async def list_top_images(self, index_ref: str, units: Sequence[int]) -> list[TopImages]:
        """The source images that excite each unit most."""
        index = await asyncio.to_thread(open_index, self.store, index_ref)
        return await asyncio.to_thread(list_top_images, index, self.store, units)

    async def select_exemplars(
        self,
        network_name: str,
        index_ref: str,
        units: Sequence[int],
        settings: ExemplarSettings,
        digest: str,
        caller: Caller,
        choices: Sequence[frozenset[str]],
    ) -> list[OrError[UnitExemplars]]:
        """The exemplars of each unit, out of the images that its choice names if it names any."""
        index = await asyncio.to_thread(open_index, self.store, index_ref)
        network = await self.network(network_name, (index.record.layer,), digest)
        check_digest(index.record.model_digest, network.digest)
        selector = ExemplarSelector(
            network,
            index,
            settings,
            self.store,
            self.passes,
            caller,
            self._pool,
            self._under_way,
        )
        return await selector.select(units, choices)

    async def measure_images(
        self,
        network_name: str,
        layers: tuple[str, ...],
        sets: Sequence[activations_pb2.ImageSet],
        pooling: Pooling,
        show_at: int,
        digest: str,
        caller: Caller,
    ) -> list[OrError[Measurement]]:
        """The measurement of each set."""
        network = await self.network(network_name, layers, digest)
        return await measure_sets(
            network,
            layers,
            sets,
            pooling,
            show_at,
            store=self.store,
            passes=self.passes,
            caller=caller,
        )

    async def close(self) -> None:
        """Ends passes at their next batch, then the threads."""
        self._stopping.set()
        await asyncio.gather(*self._jobs.values(), return_exceptions=True)
        await self.passes.close()
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    def _load(self, spec: Spec) -> Network:
        target = load_target(spec)
        fixed = self._settings.max_batch if self._settings.fixed_batch else 0
        network = Network(str(spec), target, self._placement, fixed)
        log.info("loaded %s, digest %s…", spec, network.digest[:12])
        return network

    async def _finish_once(self, key: str, function: Callable[[], T], *, alone: bool = False) -> T:
        """Runs `function` in a thread; callers with the same key share the run.

        A caller may go, the run does not end with him: whoever asks again finds it further on.

        Args:
            alone: Wait for other such runs to end first; a caller that goes while he waits is
                forgotten.
        """
        task: asyncio.Task[T] | None = self._jobs.get(key)
        if task is None and alone:
            await self._one_pass.acquire()
            task = self._jobs.get(key)
            if task is not None:
                self._one_pass.release()
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(function))
            self._jobs[key] = task

            def forget(done: asyncio.Task[T]) -> None:
                del self._jobs[key]
                if alone:
                    self._one_pass.release()
                if not done.cancelled():
                    done.exception()  # seen, though every caller may have gone

            task.add_done_callback(forget)
        return await asyncio.shield(task)
