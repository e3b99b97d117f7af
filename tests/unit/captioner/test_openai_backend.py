"""A vision-language model behind an API, over gRPC, against a fake HTTP server on loopback."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from local_server import reason, serve
from openai_api import Api, completion, failure, serve_api, without_proxy
from PIL import Image

from dnd.artifacts import ArtifactStore
from dnd.images import encode_png
from dnd.serving import Metrics
from dnd.serving.remote_chat import RemoteModel
from dnd.v1 import captioner_pb2, captioner_pb2_grpc, types_pb2
from dnd_services.captioner.model import CHAT_PROMPT
from dnd_services.captioner.openai_backend import MAX_SIDE, RemoteCaptioner
from dnd_services.captioner.servicer import stage_service

SETTINGS = captioner_pb2.CaptionSettings(max_new_tokens=20, min_length=3, num_beams=1)
RED, BLUE = (
    types_pb2.Image(data=encode_png(Image.new("RGB", (40, 30), name))) for name in ("red", "blue")
)


class Service:
    """A running captioner, and the API behind it."""

    def __init__(self, channel: grpc.aio.Channel, api: Api) -> None:
        self.stub = captioner_pb2_grpc.CaptionerServiceStub(channel)
        self.api = api

    async def ask(
        self, images: Sequence[types_pb2.Image], num_labels: int = 0
    ) -> list[captioner_pb2.Caption]:
        request = captioner_pb2.CaptionImagesRequest(
            images=images, settings=SETTINGS, num_labels=num_labels
        )
        return list((await self.stub.CaptionImages(request)).captions)

    async def label(self, answer: str) -> captioner_pb2.Caption:
        self.api.body = completion(answer)
        (found,) = await self.ask([RED], num_labels=3)
        return found


@pytest_asyncio.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    without_proxy(monkeypatch)
    metrics = Metrics()
    async with serve_api() as api:
        model = RemoteCaptioner(RemoteModel("tiny", api.url), "", metrics)
        async with serve(stage_service(model, ArtifactStore(tmp_path)), metrics) as channel:
            yield Service(channel, api)


def parts(request: dict[str, Any]) -> tuple[Image.Image, str]:
    """The picture and the question in a request of the API."""
    (message,) = request["messages"]
    picture, text = message["content"]
    head, _, data = picture["image_url"]["url"].partition(",")
    assert (message["role"], picture["type"], text["type"]) == ("user", "image_url", "text")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))), text["text"]


def colour(request: dict[str, Any]) -> str:
    red, _, blue = parts(request)[0].getpixel((5, 5))  # type: ignore[misc]
    return "red" if red > blue else "blue"


async def test_each_picture_is_asked_about_in_a_call_of_its_own(service: Service) -> None:
    service.api.answer = lambda request: completion(f'"A {colour(request)} square."\nNot read.')
    captions = await service.ask([RED, BLUE, RED])
    assert [one.text.strip('"') for one in captions] == [
        "A red square.",
        "A blue square.",
        "A red square.",
    ]
    _, _, request = service.api.requests[0]
    picture, question = parts(request)
    assert picture.size == (40, 30)
    assert question == CHAT_PROMPT
    assert {name: request[name] for name in ("model", "temperature", "seed", "max_tokens")} == {
        "model": "tiny",
        "temperature": 0.0,
        "seed": 0,
        "max_tokens": 20,
    }


async def test_prompt_of_the_operator_is_asked_and_large_pictures_are_shrunk() -> None:
    model = RemoteCaptioner(RemoteModel("tiny"), "What is it?", Metrics())
    url = model.prepare(Image.new("RGB", (3000, 1500)))
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert picture.size == (MAX_SIDE, MAX_SIDE // 2)
    assert model._prompt == "What is it?"
    await model.close()


async def test_montage_has_labels_that_are_cleaned_and_counted(service: Service) -> None:
    labels = await service.label("1. A red surface.\n- red things\nred things\n\nSquares\nfour")
    assert list(labels.labels) == ["a red surface", "red things", "squares"]
    assert not labels.text
    _, question = parts(service.api.requests[0][2])
    assert "3 different short labels" in question


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("red things\nI am sorry", ["red things"]),
        ("red things\nall of the pictures show a very red and large thing", ["red things"]),
        ("I cannot help with that.", []),
        ("", []),
        ("???", []),
        ("<think>It is red, or", []),
    ],
)
async def test_nonsense_is_no_label(service: Service, said: str, left: list[str]) -> None:
    found = await service.label(said)
    assert list(found.labels) == left
    assert found.error.reason == ("" if left else "BadAnswer")


async def test_answer_without_a_word_is_no_caption(service: Service) -> None:
    service.api.answer = lambda request: completion(
        "I cannot see it." if colour(request) == "red" else "a square"
    )
    silent, spoken = await service.ask([RED, BLUE])
    assert silent.error.reason == "BadAnswer"
    assert spoken.text == "a square"


async def test_bad_images_are_not_asked_about(service: Service) -> None:
    service.api.body = completion("a square")
    broken, missing, good = await service.ask(
        [types_pb2.Image(data=b"nothing"), types_pb2.Image(ref="sha256:" + "0" * 64), RED]
    )
    assert (broken.error.reason, missing.error.reason) == ("BadImage", "NotFound")
    assert good.text == "a square"
    assert len(service.api.requests) == 1
    (alone,) = await service.ask([types_pb2.Image(data=b"nothing")])
    assert alone.error.reason == "BadImage"
    assert len(service.api.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, failure("Wrong key", "invalid_api_key"), "LlmRefused"),
        (404, failure("No such model", "model_not_found"), "LlmRefused"),
        (429, failure("Slow down"), "LlmRateLimited"),
        (503, failure("Busy"), "LlmUnavailable"),
    ],
)
async def test_outage_fails_the_call_and_says_when_to_retry(
    service: Service, status: int, body: object, expected: str
) -> None:
    service.api.status, service.api.body = status, body
    service.api.headers = {"Retry-After": "7"}
    for num_labels in (0, 3):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.ask([RED, BLUE], num_labels)
        assert reason(caught.value) == expected
        waits = dict(caught.value.trailing_metadata() or ()).get("grpc-retry-pushback-ms")
        assert waits == (None if expected == "LlmRefused" else "7000")


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, failure("This model takes no images"), "InvalidInput"),
        (200, b"<html>welcome</html>", "BadAnswer"),
        (200, {"choices": []}, "BadAnswer"),
    ],
)
async def test_what_is_wrong_with_one_call_is_the_error_of_its_picture(
    service: Service, status: int, body: object, expected: str
) -> None:
    service.api.status, service.api.body = status, body
    for num_labels in (0, 3):
        found = await service.ask([RED, BLUE], num_labels)
        assert [one.error.reason for one in found] == [expected, expected]
