"""The service over gRPC: order, per-item errors, limits, batching, what lands in the store."""

from __future__ import annotations

import asyncio
import errno
import io
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from local_server import reason, serve
from PIL import Image
from unit.synthesizer.conftest import MAX_BATCH, settings_for

from dnd.artifacts import ArtifactStore
from dnd.profiles import SynthesisSettings
from dnd.serving import Metrics
from dnd.types import Drawing, OrError
from dnd.v1 import synthesizer_pb2, synthesizer_pb2_grpc
from dnd_services.synthesizer.backend import Synthesizer
from dnd_services.synthesizer.servicer import stage_service

Load = Callable[..., Synthesizer]
SETTINGS = synthesizer_pb2.SynthesisSettings(
    num_steps=2, guidance=2.5, size=64, scheduler="dpmsolver++"
)
PROMPTS = ("red apple", "red apple", "blue dog", "moon", "green boat", "red apple")


class Service:
    """A running synthesizer, and what its device was given."""

    def __init__(self, synthesizer: Synthesizer, channel: grpc.aio.Channel, root: Path):
        self.synthesizer = synthesizer
        self.stub = synthesizer_pb2_grpc.SynthesizerServiceStub(channel)
        self.store = ArtifactStore(root)
        self.batches: list[tuple[SynthesisSettings, list[str]]] = []
        self.poison = ""

    def draw(
        self,
        settings: SynthesisSettings,
        drawings: Sequence[Drawing],
        is_abandoned: Callable[[], bool],
    ) -> list[OrError[Image.Image]]:
        self.batches.append((settings, [drawing.prompt for drawing in drawings]))
        if self.poison and any(self.poison in drawing.prompt for drawing in drawings):
            raise RuntimeError("poison")
        return Synthesizer.draw(self.synthesizer, settings, drawings, is_abandoned)

    async def synthesize(
        self,
        prompts: Sequence[str],
        settings: synthesizer_pb2.SynthesisSettings = SETTINGS,
        digest: str = "",
    ) -> list[synthesizer_pb2.SyntheticImage]:
        answer = await self.stub.SynthesizeImages(
            synthesizer_pb2.SynthesizeImagesRequest(
                drawings=[
                    synthesizer_pb2.Drawing(prompt=prompt, seed=seed)
                    for seed, prompt in enumerate(prompts)
                ],
                settings=settings,
                model_digest=digest,
            )
        )
        return list(answer.images)


@pytest_asyncio.fixture
async def service(
    load: Load,
    weights: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Service]:
    synthesizer = load("sd", fixed_batch=True)
    settings = settings_for(weights("sd"), artifacts=str(tmp_path), max_wait_ms=50.0)
    metrics = Metrics()

    def draw(
        settings: SynthesisSettings, drawings: Sequence[Drawing], is_abandoned: Callable[[], bool]
    ) -> list[OrError[Image.Image]]:
        return running.draw(settings, drawings, is_abandoned)

    monkeypatch.setattr(synthesizer, "draw", draw)
    async with serve(stage_service(synthesizer, settings, metrics), metrics) as channel:
        running = Service(synthesizer, channel, tmp_path)
        yield running


async def test_pipeline_is_described(service: Service) -> None:
    answer = await service.stub.GetSynthesizerModel(synthesizer_pb2.GetSynthesizerModelRequest())
    assert answer.model.architecture == "StableDiffusionPipeline"
    assert answer.model.digest == service.synthesizer.info.digest
    assert answer.model.fixed_batch == MAX_BATCH


async def test_drawings_are_lossless_pictures_in_the_store(service: Service) -> None:
    images = await service.synthesize(PROMPTS)
    refs = [image.image.ref for image in images]
    assert len(set(refs)) == len(PROMPTS)
    for ref in refs:
        with Image.open(io.BytesIO(service.store.get_bytes(ref))) as picture:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (64, 64))


async def test_same_drawing_has_the_same_bytes_across_calls_and_batches(
    service: Service,
) -> None:
    together = [image.image.ref for image in await service.synthesize(PROMPTS)]
    again = [image.image.ref for image in await service.synthesize(PROMPTS)]
    fewer = [image.image.ref for image in await service.synthesize(PROMPTS[:2])]
    assert together == again
    assert together[:2] == fewer


async def test_bad_prompts_have_errors_and_the_good_ones_pictures(service: Service) -> None:
    images = await service.synthesize(
        ["red apple", "", "  \n", "a" * 401, "more letters than sixteen", "blue dog"]
    )
    assert [image.error.reason for image in images] == [
        "",
        "InvalidInput",
        "InvalidInput",
        "InvalidInput",
        "InvalidInput",
        "",
    ]
    assert "401 characters: expected 1 to 400" in images[3].error.message
    assert [bool(image.image.ref) for image in images] == [True, *[False] * 4, True]
    (alone,) = await service.synthesize(["red apple"])
    assert images[0].image.ref == alone.image.ref


async def test_poison_prompt_fails_alone(service: Service) -> None:
    healthy = await service.synthesize(PROMPTS)
    service.poison = "moon"
    images = await service.synthesize(PROMPTS)
    assert images[3].error.reason == "Internal"
    assert "poison" in images[3].error.message
    del images[3], healthy[3]
    assert images == healthy


async def test_prompts_and_callers_are_mixed_in_a_batch_but_settings_are_not(
    service: Service,
) -> None:
    unguided = synthesizer_pb2.SynthesisSettings()
    unguided.CopyFrom(SETTINGS)
    unguided.guidance = 0
    await asyncio.gather(
        service.synthesize(["red apple", "moon"]),
        service.synthesize(["red apple"], unguided),
        service.synthesize(["blue dog"]),
    )
    assert sorted(
        (settings.guidance, sorted(prompts)) for settings, prompts in service.batches
    ) == [(0.0, ["red apple"]), (2.5, ["blue dog", "moon", "red apple"])]


async def test_full_disk_fails_the_call_as_the_operators_matter(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dnd.artifacts.obstore.put", full)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.synthesize(["red apple"])
    assert reason(caught.value) == "StorageFull"


@pytest.mark.parametrize(
    ("num_drawings", "changes", "digest", "code", "expected"),
    [
        (0, {}, "", "INVALID_ARGUMENT", "InvalidInput"),
        (257, {}, "", "INVALID_ARGUMENT", "RequestTooLarge"),
        (1, {}, "f" * 64, "FAILED_PRECONDITION", "DigestMismatch"),
        (1, {"num_steps": 0}, "", "INVALID_ARGUMENT", "InvalidInput"),
        (1, {"num_steps": 201}, "", "INVALID_ARGUMENT", "InvalidInput"),
        (1, {"guidance": -1.0}, "", "INVALID_ARGUMENT", "BadSetting"),
        (1, {"size": 63}, "", "INVALID_ARGUMENT", "BadSetting"),
        (1, {"scheduler": "dpm"}, "", "INVALID_ARGUMENT", "BadSetting"),
    ],
)
async def test_bad_request_is_refused_with_its_reason(
    service: Service,
    num_drawings: int,
    changes: dict[str, object],
    digest: str,
    code: str,
    expected: str,
) -> None:
    settings = synthesizer_pb2.SynthesisSettings()
    settings.CopyFrom(SETTINGS)
    for name, value in changes.items():
        setattr(settings, name, value)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.synthesize(["red apple"] * num_drawings, settings, digest)
    assert caught.value.code() is getattr(grpc.StatusCode, code)
    assert reason(caught.value) == expected
    assert all(name in str(caught.value.details()) for name in changes)
    assert not service.batches


async def test_request_frozen_to_these_weights_is_answered(service: Service) -> None:
    (image,) = await service.synthesize(["moon"], digest=service.synthesizer.info.digest)
    assert image.image.ref
