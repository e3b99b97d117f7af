"""DnD step 3 over gRPC: image sets are measured right, once, and apart from each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from unit.activations.conftest import Service, draw, start_service

from dnd.images import encode_png
from dnd.profiles import Pooling
from dnd.v1 import activations_pb2 as pb
from dnd.v1 import types_pb2
from dnd_services.activations.network import Network

LAYERS = ("conv1", "conv2", "fc")


def image_set(service: Service, key: str, numbers: range) -> pb.ImageSet:
    images = [service.put(encode_png(draw(number))) for number in numbers]
    return pb.ImageSet(key=key, images=images)


def arrays(service: Service, one: pb.Measurement) -> list[np.ndarray]:
    return [np.asarray(service.store.get_array(ref)) for ref in one.activations_refs]


@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.MAX])
async def test_rows_are_what_the_network_says_of_each_image(
    service: Service, cnn: Network, pooling: Pooling
) -> None:
    sets = [image_set(service, "a", range(10)), image_set(service, "b", range(20, 23))]
    measured = await service.measure("tiny", LAYERS, sets, pooling)
    assert [one.key for one in measured] == ["a", "b"]
    for one, numbers in zip(measured, (range(10), range(20, 23)), strict=True):
        pixels = [cnn.preprocessing.prepare(draw(number)) for number in numbers]
        rows = [cnn.measure([row], LAYERS, pooling) for row in pixels]
        for place, array in enumerate(arrays(service, one)):
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, [row[place].numpy()[0] for row in rows])


async def test_layers_in_one_pass_equal_single_passes(service: Service) -> None:
    one = image_set(service, "", range(5))
    (together,) = await service.measure("tiny", LAYERS, [one])
    alone = [(await service.measure("tiny", [layer], [one]))[0] for layer in LAYERS]
    assert list(together.activations_refs) == [x.activations_refs[0] for x in alone]


async def test_images_are_shrunk_first_on_demand(service: Service, cnn: Network) -> None:
    (found,) = await service.measure("tiny", ["fc"], [image_set(service, "a", range(1))], show_at=8)
    small = draw(0).resize((8, 8), resample=3)
    (expected,) = cnn.measure([cnn.preprocessing.prepare(small)], ["fc"], Pooling.MEAN)
    np.testing.assert_array_equal(arrays(service, found)[0], expected.numpy())


async def test_set_is_measured_once_and_found_again_after_a_restart(
    tmp_path: Path, offered: Path, measured: list[int]
) -> None:
    async with start_service(tmp_path, offered) as service:
        one = image_set(service, "key", range(10))
        first = await service.measure("tiny", LAYERS, [one])
        assert sum(measured) == 10
        assert await service.measure("tiny", LAYERS, [one]) == first
        assert (
            await service.measure("tiny", LAYERS[1:], [one, one])
            == [pb.Measurement(key="key", activations_refs=first[0].activations_refs[1:])] * 2
        )
    async with start_service(tmp_path, offered) as service:
        assert await service.measure("tiny", LAYERS, [one]) == first
        assert service.metrics.registry.get_sample_value("dnd_cached_items_total") == 10
    assert sum(measured) == 10


@pytest.mark.parametrize(
    "other",
    [
        {"layers": ["relu"]},
        {"pooling": Pooling.MAX},
        {"show_at": 16},
        {"model": "planted", "layers": ["red"]},
    ],
)
async def test_another_question_is_measured_again(
    service: Service, measured: list[int], other: dict[str, object]
) -> None:
    one = image_set(service, "key", range(4))
    await service.measure("tiny", ["conv1"], [one])
    asked = {"model": "tiny", "layers": ["conv1"], "sets": [one]} | other
    await service.measure(**asked)  # type: ignore[arg-type]
    assert sum(measured) == 8


async def test_same_key_with_other_images_is_another_set(service: Service) -> None:
    """Drawings may fail: the set of a prompt is then redrawn, and may have others."""
    first, second = (image_set(service, "key", numbers) for numbers in (range(4), range(1, 5)))
    one = arrays(service, (await service.measure("tiny", ["fc"], [first]))[0])[0]
    other = arrays(service, (await service.measure("tiny", ["fc"], [second]))[0])[0]
    np.testing.assert_array_equal(one[1:], other[:-1])
    assert not np.array_equal(one, other)


async def test_set_without_a_key_is_not_remembered(service: Service, measured: list[int]) -> None:
    one = image_set(service, "", range(3))
    assert await service.measure("tiny", ["fc"], [one]) == await service.measure(
        "tiny", ["fc"], [one]
    )
    assert sum(measured) == 6


async def test_lost_measurement_is_measured_again(service: Service, measured: list[int]) -> None:
    one = image_set(service, "key", range(3))
    first = await service.measure("tiny", LAYERS, [one])
    ref = first[0].activations_refs[1]
    (service.store.root / "blobs" / ref[7:9] / ref[7:]).unlink()
    assert await service.measure("tiny", LAYERS, [one]) == first
    assert ref in service.store
    assert sum(measured) == 6


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (types_pb2.Image(data=b"no image"), "BadImage"),
        (types_pb2.Image(), "BadImage"),
        (types_pb2.Image(ref="sha256:" + "0" * 64), "NotFound"),
        (types_pb2.Image(ref="../../etc/passwd"), "InvalidInput"),
    ],
)
async def test_bad_image_fails_its_own_set_and_says_which_it_is(
    service: Service, bad: types_pb2.Image, reason: str
) -> None:
    good = image_set(service, "good", range(4))
    spoilt = pb.ImageSet(key="spoilt", images=[*good.images[:2], bad])
    answers = await service.measure("tiny", ["fc"], [good, spoilt, good])
    assert [one.key for one in answers] == ["good", "spoilt", "good"]
    assert answers[1].error.reason == reason
    assert "Image 2 of set 'spoilt'" in answers[1].error.message
    assert not answers[1].activations_refs
    for one in (answers[0], answers[2]):
        assert arrays(service, one)[0].shape == (4, 6)


async def test_class_token_of_a_convolution_is_an_error_of_the_sets(service: Service) -> None:
    (answer,) = await service.measure(
        "tiny", ["conv1"], [image_set(service, "a", range(2))], Pooling.CLS
    )
    assert answer.error.reason == "InvalidInput"
    assert "use 'mean' or 'max'" in answer.error.message


async def test_bytes_in_place_of_references_are_measured_too(service: Service) -> None:
    data = encode_png(draw(3))
    inline = pb.ImageSet(images=[types_pb2.Image(data=data)])
    stored = pb.ImageSet(images=[service.put(data)])
    one, other = await service.measure("tiny", ["fc"], [inline, stored])
    assert one == other
