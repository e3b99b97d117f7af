"""The five stage services twice: the fakes of `dnd.testing`, and the real servicers on tiny models.

Every assertion of the contract tests is made in both worlds, so that whoever tests against the
fakes can rely on what they do.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from PIL import Image
from tiny import captioners, embedders, pipelines

from dnd.artifacts import ArtifactStore
from dnd.clients import SERVICE_NAMES, error_of
from dnd.errors import DeadlineExceeded, NotFound
from dnd.images import encode_png
from dnd.serving import DynamicBatcher, Metrics, StageService
from dnd.serving.interceptor import ErrorInterceptor
from dnd.serving.server import CHANNEL_OPTIONS, start_server
from dnd.testing import start_fakes
from dnd.types import ModelInfo, OrError, RequestContext
from dnd.v1 import (
    activations_pb2,
    activations_pb2_grpc,
    captioner_pb2,
    captioner_pb2_grpc,
    scorer_pb2,
    scorer_pb2_grpc,
    summarizer_pb2,
    summarizer_pb2_grpc,
    synthesizer_pb2,
    synthesizer_pb2_grpc,
)

FILES: dict[str, tuple[Any, Any]] = {
    "activations": (activations_pb2, activations_pb2_grpc.ActivationsServiceStub),
    "captioner": (captioner_pb2, captioner_pb2_grpc.CaptionerServiceStub),
    "summarizer": (summarizer_pb2, summarizer_pb2_grpc.SummarizerServiceStub),
    "synthesizer": (synthesizer_pb2, synthesizer_pb2_grpc.SynthesizerServiceStub),
    "scorer": (scorer_pb2, scorer_pb2_grpc.ScorerServiceStub),
}
SERVICE_OF = {
    method: name
    for name, (file, _) in FILES.items()
    for method in file.DESCRIPTOR.services_by_name[f"{name.capitalize()}Service"].methods_by_name
}
DEADLINE_S = 60.0
NUM_PICTURES = 40

Stall = Callable[[], AbstractContextManager[None]]
Lose = Callable[[int, Sequence[str]], AbstractContextManager[None]]


@dataclass
class World:
    """Five services that listen on loopback.

    Attributes:
        artifacts: The store that they share with their callers.
        targets: Where they listen, by service.
        layer: A layer of the model "tiny" with at least 8 units, most of them live.
        stall: While its block runs, nothing that needs a model is answered.
        lose: While its block runs, a unit has no exemplars for want of its source images.
    """

    artifacts: ArtifactStore
    targets: dict[str, str]
    layer: str
    stall: Stall
    lose: Lose
    channels: dict[str, grpc.Channel] = field(default_factory=dict)

    def ask(self, method: str, request: Message, deadline_s: float = DEADLINE_S) -> Any:
        """What the service answers; raises the error of `dnd.errors` that it sent."""
        name = SERVICE_OF[method]
        if name not in self.channels:
            self.channels[name] = grpc.insecure_channel(self.targets[name], CHANNEL_OPTIONS)
        _, stub_class = FILES[name]
        stub = stub_class(self.channels[name])
        try:
            return getattr(stub, method)(request, timeout=deadline_s, wait_for_ready=True)
        except grpc.RpcError as error:
            raise error_of(error, name) from None

    def close(self) -> None:
        for channel in self.channels.values():
            channel.close()


def draw(number: int) -> bytes:
    """A picture that no other number has."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return encode_png(Image.fromarray(coarse).resize((44, 40), Image.Resampling.BICUBIC))


@contextmanager
def fake_world(folder: Path) -> Iterator[World]:
    with start_fakes(folder) as fakes:
        faults = [getattr(fakes, name).faults for name in SERVICE_NAMES]

        @contextmanager
        def stall() -> Iterator[None]:
            for one in faults:
                one.latency_s = 1.0
            try:
                yield
            finally:
                for one in faults:
                    one.latency_s = 0.0

        @contextmanager
        def lose(unit: int, sources: Sequence[str]) -> Iterator[None]:
            lost = NotFound(f"The artifact store has no {sources[0]}.")
            fakes.activations.faults.item = lambda asked: lost if asked == unit else None
            try:
                yield
            finally:
                fakes.activations.faults.item = None

        world = World(fakes.artifacts, fakes.targets, "features.conv", stall, lose)
        yield world
        world.close()


@contextmanager
def real_world(folder: Path) -> Iterator[World]:
    gate = threading.Event()
    gate.set()
    store = ArtifactStore(folder / "artifacts")

    @contextmanager
    def stall() -> Iterator[None]:
        gate.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DynamicBatcher, "_compute", _compute_behind(gate))
            try:
                yield
            finally:
                gate.set()

    @contextmanager
    def lose(unit: int, sources: Sequence[str]) -> Iterator[None]:
        paths = [store.root / "blobs" / ref[7:9] / ref[7:] for ref in sources]
        for path in paths:
            path.rename(path.with_suffix(".lost"))
        try:
            yield
        finally:
            for path in paths:
                path.with_suffix(".lost").rename(path)

    with _loop() as loop:
        targets, stop = asyncio.run_coroutine_threadsafe(_start(folder, gate), loop).result()
        world = World(store, targets, "conv2", stall, lose)
        try:
            yield world
        finally:
            world.close()
            asyncio.run_coroutine_threadsafe(stop.aclose(), loop).result()


def _compute_behind(gate: threading.Event) -> Callable[..., Any]:
    """What a device thread does with a batch: it waits for the gate first."""
    compute = DynamicBatcher._compute

    def wait_and_compute(self: Any, bucket: Any, items: list[Any]) -> Any:
        gate.wait(DEADLINE_S)
        return compute(self, bucket, items)

    return wait_and_compute


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def _start(folder: Path, gate: threading.Event) -> tuple[dict[str, str], AsyncExitStack]:
    """All five on free ports; what is returned last stops them."""
    stack = AsyncExitStack()
    targets = {}
    metrics = Metrics()
    for name, service in _build(folder, gate, metrics).items():
        port = await stack.enter_async_context(_serving(service, metrics))
        targets[name] = f"127.0.0.1:{port}"
    return targets, stack


@asynccontextmanager
async def _serving(service: StageService, metrics: Metrics) -> AsyncIterator[int]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor(metrics)], options=CHANNEL_OPTIONS)
    port = server.add_insecure_port("127.0.0.1:0")
    await start_server(server, service)
    yield port
    await server.stop(0)
    await service.close()


def _build(folder: Path, gate: threading.Event, metrics: Metrics) -> dict[str, StageService]:
    """The services as their processes build them, but for the summarizer's language model."""
    from dnd_services.activations import __main__ as activations
    from dnd_services.captioner import __main__ as captioner
    from dnd_services.scorer import __main__ as scorer
    from dnd_services.summarizer import servicer as summarizer
    from dnd_services.summarizer.prompting import load_prompt_sets
    from dnd_services.synthesizer import __main__ as synthesizer

    probe, models = folder / "probe", folder / "models"
    for path in (probe, models / "blip", models / "sd", models / "clip"):
        path.mkdir(parents=True)
    for number in range(NUM_PICTURES):
        (probe / f"{number}.png").write_bytes(draw(number))
    (folder / "models.yaml").write_text('models: {tiny: {spec: "python:tiny.networks:load_cnn"}}')
    (folder / "probes.yaml").write_text('probes: {shapes: "imagefolder:probe"}')
    shared: dict[str, Any] = {
        "artifacts": str(folder / "artifacts"),
        "threads": 1,
        "max_batch": 4,
        "fixed_batch": True,
    }
    return {
        "activations": activations.build(
            activations.ActivationsSettings(
                **shared,
                models=str(folder / "models.yaml"),
                probes=str(folder / "probes.yaml"),
            ),
            metrics,
        ),
        "captioner": captioner.build(
            captioner.CaptionerSettings(**shared, model=str(captioners.save_blip(models / "blip"))),
            metrics,
        ),
        "summarizer": summarizer.stage_service(ScriptedModel(gate), load_prompt_sets()),
        "synthesizer": synthesizer.build(
            synthesizer.SynthesizerSettings(**shared, model=str(pipelines.save_sd(models / "sd"))),
            metrics,
        ),
        "scorer": scorer.build(
            scorer.ScorerSettings(**shared, model=str(embedders.save_clip(models / "clip"))),
            metrics,
        ),
    }


class ScriptedModel:
    """A language model that says the first noun of the last caption that it is shown, if any."""

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate
        self.info = ModelInfo("scripted", "d" * 64, "Scripted", "float32", "cpu")

    async def complete(
        self, calls: Sequence[Any], *, context: RequestContext, timeout_s: float | None
    ) -> list[OrError[Any]]:
        from dnd_services.summarizer.llm import ChatAnswer

        if not await asyncio.to_thread(self._gate.wait, timeout_s):
            raise DeadlineExceeded("The scripted model was not asked to go on in time.")
        nouns = [re.findall(r"^\d+\. a (\w+)", c.messages[-1].content, re.M) for c in calls]
        return [ChatAnswer(found[-1] if found else "", 20, 1) for found in nouns]

    async def close(self) -> None:
        pass
