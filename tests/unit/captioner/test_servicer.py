"""The service over gRPC: order, per-item errors, limits, batching."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from local_server import reason, serve
from PIL import Image
from unit.captioner.conftest import MAX_BATCH, settings_for

from dnd.artifacts import ArtifactStore
from dnd.images import encode_png
from dnd.profiles import CaptionSettings
from dnd.serving import Metrics
from dnd.v1 import captioner_pb2, captioner_pb2_grpc, types_pb2
from dnd_services.captioner.backend import Bucket, Captioner, Tokens
from dnd_services.captioner.batched import BatchedCaptioner
from dnd_services.captioner.prompting import Prepared
from dnd_services.captioner.servicer import stage_service

Load = Callable[..., Captioner]
SETTINGS = captioner_pb2.CaptionSettings(max_new_tokens=6, min_length=3, num_beams=1)


class Service:
    """A running captioner, and what its device was given."""

    def __init__(self, captioner: Captioner, channel: grpc.aio.Channel, store: ArtifactStore):
        self.captioner = captioner
        self.stub = captioner_pb2_grpc.CaptionerServiceStub(channel)
        self.store = store
        self.batches: list[tuple[Bucket, int]] = []
        self.poison: Prepared | None = None

    def generate(self, bucket: Bucket, items: Sequence[Prepared]) -> list[Tokens]:
        self.batches.append((bucket, len(items)))
        for item in items:
            if self.poison is not None and item.inputs["pixel_values"].equal(
                self.poison.inputs["pixel_values"]
            ):
                raise RuntimeError("poison")
        return Captioner.generate(self.captioner, bucket, items)

    def put(self, picture: Image.Image) -> types_pb2.Image:
        return types_pb2.Image(ref=self.store.put_bytes(encode_png(picture)))

    async def caption(
        self,
        images: Sequence[types_pb2.Image],
        settings: captioner_pb2.CaptionSettings = SETTINGS,
        digest: str = "",
    ) -> list[captioner_pb2.Caption]:
        answer = await self.stub.CaptionImages(
            captioner_pb2.CaptionImagesRequest(
                images=images, settings=settings, model_digest=digest
            )
        )
        return list(answer.captions)


@pytest_asyncio.fixture
async def service(
    load: Load,
    weights: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Service]:
    captioner = load("blip", fixed_batch=True)
    settings = settings_for(weights("blip"), artifacts=str(tmp_path), max_wait_ms=50.0)
    metrics = Metrics()

    def generate(bucket: Bucket, items: Sequence[Prepared]) -> list[Tokens]:
        return running.generate(bucket, items)

    monkeypatch.setattr(captioner, "generate", generate)
    store = ArtifactStore(tmp_path)
    model = BatchedCaptioner(captioner, settings, metrics)
    async with serve(stage_service(model, store), metrics) as channel:
        running = Service(captioner, channel, store)
        yield running


async def test_model_is_described(service: Service) -> None:
    answer = await service.stub.GetCaptionerModel(captioner_pb2.GetCaptionerModelRequest())
    assert answer.model.architecture == "BlipForConditionalGeneration"
    assert answer.model.digest == service.captioner.info.digest
    assert answer.model.fixed_batch == MAX_BATCH


async def test_captions_come_in_request_order(
    service: Service, pictures: list[Image.Image]
) -> None:
    images = [service.put(picture) for picture in pictures]
    forth = [caption.text for caption in await service.caption(images)]
    back = [caption.text for caption in await service.caption(images[::-1])]
    assert forth == back[::-1]
    assert all(text == text.strip() and text for text in forth)
    assert len(set(forth)) > 1


async def test_inline_bytes_have_the_caption_of_their_reference(
    service: Service, pictures: list[Image.Image]
) -> None:
    inline = types_pb2.Image(data=encode_png(pictures[0]))
    one, other = await service.caption([inline, service.put(pictures[0])])
    assert one.text == other.text != ""


async def test_bad_images_have_errors_and_the_good_ones_captions(
    service: Service, pictures: list[Image.Image]
) -> None:
    cmyk = io.BytesIO()
    pictures[0].convert("CMYK").save(cmyk, "JPEG")
    captions = await service.caption(
        [
            service.put(pictures[0]),
            types_pb2.Image(data=b"not an image"),
            types_pb2.Image(ref="sha256:" + "0" * 64),
            types_pb2.Image(ref="nonsense"),
            types_pb2.Image(),
            types_pb2.Image(data=cmyk.getvalue()),
            types_pb2.Image(data=encode_png(pictures[1])[:200]),
            service.put(Image.new("RGB", (1, 1))),
        ]
    )
    assert [caption.error.reason for caption in captions] == [
        "",
        "BadImage",
        "NotFound",
        "InvalidInput",
        "BadImage",
        "",
        "BadImage",
        "",
    ]
    assert all(bool(caption.text) != bool(caption.error.reason) for caption in captions)
    (alone,) = await service.caption([service.put(pictures[0])])
    assert captions[0].text == alone.text


async def test_poison_picture_fails_alone(service: Service, pictures: list[Image.Image]) -> None:
    images = [service.put(picture) for picture in pictures]
    healthy = await service.caption(images)
    service.poison = service.captioner.prepare(pictures[2])
    captions = await service.caption(images)
    assert captions[2].error.reason == "Internal"
    assert "poison" in captions[2].error.message
    del captions[2], healthy[2]
    assert captions == healthy


async def test_picture_without_words_is_a_bad_answer(
    service: Service, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    def silence(bucket: Bucket, items: Sequence[Prepared]) -> list[Tokens]:
        return [(2, 3), *Captioner.generate(service.captioner, bucket, items[1:])]

    monkeypatch.setattr(service, "generate", silence)
    silent, spoken = await service.caption([service.put(p) for p in pictures[:2]])
    assert silent.error.reason == "BadAnswer"
    assert spoken.text


async def test_settings_are_not_mixed_in_a_batch_but_callers_are(
    service: Service, pictures: list[Image.Image]
) -> None:
    images = [service.put(picture) for picture in pictures[:2]]
    beams = captioner_pb2.CaptionSettings(max_new_tokens=6, min_length=3, num_beams=2)
    await asyncio.gather(
        service.caption(images),
        service.caption(images, beams),
        service.caption(images),
    )
    assert sorted((bucket[0].num_beams, num) for bucket, num in service.batches) == [
        (1, 4),
        (2, 2),
    ]
    assert {type(bucket[0]) for bucket, _ in service.batches} == {CaptionSettings}


@pytest.mark.parametrize(
    ("num_images", "changes", "digest", "code", "expected"),
    [
        (0, {}, "", "INVALID_ARGUMENT", "InvalidInput"),
        (257, {}, "", "INVALID_ARGUMENT", "RequestTooLarge"),
        (1, {}, "f" * 64, "FAILED_PRECONDITION", "DigestMismatch"),
        (1, {"max_new_tokens": 0}, "", "INVALID_ARGUMENT", "InvalidInput"),
        (1, {"max_new_tokens": 257}, "", "INVALID_ARGUMENT", "InvalidInput"),
        (1, {"num_beams": 0}, "", "INVALID_ARGUMENT", "InvalidInput"),
        (1, {"num_beams": 9}, "", "INVALID_ARGUMENT", "InvalidInput"),
        (1, {"min_length": -1}, "", "INVALID_ARGUMENT", "InvalidInput"),
        (1, {"min_length": 7}, "", "INVALID_ARGUMENT", "BadSetting"),
    ],
)
async def test_bad_request_is_refused_with_its_reason(
    service: Service,
    num_images: int,
    changes: dict[str, int],
    digest: str,
    code: str,
    expected: str,
) -> None:
    settings = captioner_pb2.CaptionSettings()
    settings.CopyFrom(SETTINGS)
    for name, value in changes.items():
        setattr(settings, name, value)
    image = types_pb2.Image(data=encode_png(Image.new("RGB", (8, 8))))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.caption([image] * num_images, settings, digest)
    assert caught.value.code() is getattr(grpc.StatusCode, code)
    assert reason(caught.value) == expected
    assert all(name in str(caught.value.details()) for name in changes)
    assert not service.batches


@pytest.mark.parametrize(
    ("num_labels", "expected", "hint"),
    [(3, "FailedPrecondition", "DND_MODEL=openai:NAME"), (17, "InvalidInput", "num_labels is 17")],
)
async def test_labels_of_a_montage_are_refused_by_a_model_that_takes_no_questions(
    service: Service, num_labels: int, expected: str, hint: str
) -> None:
    image = types_pb2.Image(data=encode_png(Image.new("RGB", (8, 8))))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.CaptionImages(
            captioner_pb2.CaptionImagesRequest(
                images=[image], settings=SETTINGS, num_labels=num_labels
            )
        )
    assert reason(caught.value) == expected
    assert hint in str(caught.value.details())
    assert not service.batches


async def test_request_frozen_to_these_weights_is_answered(
    service: Service, pictures: list[Image.Image]
) -> None:
    (caption,) = await service.caption(
        [service.put(pictures[0])], digest=service.captioner.info.digest
    )
    assert caption.text
