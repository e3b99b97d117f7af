"""The service over gRPC: order, per-item errors, limits, batching, memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from local_server import reason, serve
from PIL import Image
from unit.scorer.conftest import MAX_BATCH, settings_for

from dnd.artifacts import ArtifactStore
from dnd.convert import to_message
from dnd.images import encode_png
from dnd.manifest import build_manifest
from dnd.profiles import PAPER
from dnd.serving import Metrics
from dnd.types import OrError
from dnd.v1 import scorer_pb2, scorer_pb2_grpc, types_pb2
from dnd_services.scorer.backend import Bucket, ClipModel, Prepared, Vector
from dnd_services.scorer.servicer import stage_service

Load = Callable[..., ClipModel]
TOPK = scorer_pb2.SCORING_FUNCTION_TOPK_SQUARED_MEAN
PROBE = scorer_pb2.SCORING_FUNCTION_PROBE_CORRELATION


class Service:
    """A running scorer, and what its device was given."""

    def __init__(
        self, clip: ClipModel, channel: grpc.aio.Channel, store: ArtifactStore, metrics: Metrics
    ) -> None:
        self.clip = clip
        self.stub = scorer_pb2_grpc.ScorerServiceStub(channel)
        self.store = store
        self.metrics = metrics
        self.batches: list[tuple[str, int]] = []
        self.poison: Prepared | None = None

    def embed(self, bucket: Bucket, items: Sequence[Prepared]) -> list[OrError[Vector]]:
        self.batches.append((bucket[0], len(items)))
        for item in items:
            if self.poison is not None and all(
                item.inputs[key].equal(value) for key, value in self.poison.inputs.items()
            ):
                raise RuntimeError("poison")
        return ClipModel.embed(self.clip, bucket, items)

    @property
    def num_cached(self) -> float | None:
        return self.metrics.registry.get_sample_value("dnd_cached_items_total")

    def put(self, *colours: Any) -> list[types_pb2.Image]:
        pictures = [Image.new("RGB", (20, 20), colour) for colour in colours]
        return [types_pb2.Image(ref=self.store.put_bytes(encode_png(one))) for one in pictures]

    async def embed_images(
        self, images: Sequence[types_pb2.Image], show_at: int = 0
    ) -> list[scorer_pb2.Embedding]:
        request = scorer_pb2.EmbedImagesRequest(images=images, show_at=show_at)
        return list((await self.stub.EmbedImages(request)).embeddings)

    async def embed_texts(self, texts: Sequence[str]) -> list[scorer_pb2.Embedding]:
        request = scorer_pb2.EmbedTextsRequest(texts=texts)
        return list((await self.stub.EmbedTexts(request)).embeddings)

    async def score(
        self,
        units: Sequence[scorer_pb2.ScoreUnit],
        settings: scorer_pb2.ScoreSettings | None = None,
        **fields: str,
    ) -> list[scorer_pb2.Ranking]:
        request = scorer_pb2.ScoreConceptsRequest(
            units=units, settings=settings or score_settings(), **fields
        )
        return list((await self.stub.ScoreConcepts(request)).rankings)

    def unit(self) -> scorer_pb2.ScoreUnit:
        """A unit that likes red, with three candidates of two drawings each."""
        drawings = self.put("red", "maroon", "lime", "green", "blue", "navy")
        activations = (9.0, 8.0, 7.0, 1.0, 2.0, 3.0)
        candidates = [
            scorer_pb2.ScoreCandidate(
                text=text,
                images=drawings[2 * n : 2 * n + 2],
                activations=activations[2 * n : 2 * n + 2],
            )
            for n, text in enumerate(("red", "green", "blue"))
        ]
        exemplars = self.put("red", "orange")
        return scorer_pb2.ScoreUnit(exemplars=exemplars, candidates=candidates)


def score_settings(**changes: Any) -> scorer_pb2.ScoreSettings:
    settings = to_message(PAPER.score, scorer_pb2.ScoreSettings)
    for name, value in changes.items():
        setattr(settings, name, value)
    return settings


@pytest_asyncio.fixture
async def service(
    load: Load,
    weights: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Service]:
    clip = load("clip", fixed_batch=True)
    settings = settings_for(weights("clip"), artifacts=str(tmp_path), max_wait_ms=50.0)
    metrics = Metrics()

    def embed(bucket: Bucket, items: Sequence[Prepared]) -> list[OrError[Vector]]:
        return running.embed(bucket, items)

    monkeypatch.setattr(clip, "embed", embed)
    async with serve(stage_service(clip, settings, 1, metrics), metrics) as channel:
        running = Service(clip, channel, ArtifactStore(tmp_path), metrics)
        yield running


async def test_model_is_described(service: Service) -> None:
    answer = await service.stub.GetScorerModel(scorer_pb2.GetScorerModelRequest())
    assert answer.model.architecture == "CLIPModel"
    assert answer.model.digest == service.clip.info.digest
    assert answer.model.fixed_batch == MAX_BATCH


# --- Embeddings -----------------------------------------------------------------------------------


async def test_embeddings_come_in_request_order(service: Service) -> None:
    images = service.put("red", "green", "blue")
    forth, back = await service.embed_images(images), await service.embed_images(images[::-1])
    assert forth == back[::-1]
    assert len({tuple(one.values) for one in forth}) == 3
    texts = await service.embed_texts(["dog", "cat"])
    assert texts[::-1] == await service.embed_texts(["cat", "dog"])
    assert np.linalg.norm(texts[0].values) == pytest.approx(1, abs=1e-6)


async def test_same_item_is_computed_once_in_a_request_and_after_it(service: Service) -> None:
    red, blue = service.put("red", "blue")
    inline = types_pb2.Image(data=service.store.get_bytes(red.ref))
    found = await service.embed_images([red, blue, red, inline])
    assert found[0] == found[2] == found[3] != found[1]
    assert service.batches == [("image", 2)]
    assert service.num_cached == 2
    assert await service.embed_images([blue]) == [found[1]]
    assert await service.embed_texts(["dog", "dog"]) == await service.embed_texts(["dog"]) * 2
    assert service.batches == [("image", 2), ("text", 1)]
    assert service.num_cached == 2 + 1 + 1 + 1
    await service.embed_images([red], show_at=8)
    assert len(service.batches) == 3, "shrunk pictures are others"


async def test_callers_share_batches_and_no_batch_mixes_texts_and_pictures(
    service: Service,
) -> None:
    images = service.put("red", "green", "blue", "white")
    await asyncio.gather(
        service.embed_images(images[:2]),
        service.embed_images(images[2:]),
        service.embed_texts("ab"),
    )
    assert sorted(service.batches) == [("image", 4), ("text", 2)]


async def test_pictures_beyond_one_batch_fill_the_batches(service: Service) -> None:
    images = service.put(*((n, 0, 0) for n in range(2 * MAX_BATCH + 1)))
    await service.embed_images(images)
    assert service.batches == [("image", MAX_BATCH), ("image", MAX_BATCH), ("image", 1)]


async def test_bad_items_have_errors_and_the_good_ones_embeddings(service: Service) -> None:
    (red,) = service.put("red")
    images = await service.embed_images(
        [
            red,
            types_pb2.Image(data=b"not an image"),
            types_pb2.Image(ref="sha256:" + "0" * 64),
            types_pb2.Image(ref="nonsense"),
            types_pb2.Image(),
            *service.put((1, 1, 1)),
        ]
    )
    reasons = ["", "BadImage", "NotFound", "InvalidInput", "BadImage", ""]
    assert [one.error.reason for one in images] == reasons
    texts = await service.embed_texts(["dog", " ", "x" * 1001, "cat"])
    assert [one.error.reason for one in texts] == ["", "InvalidInput", "InvalidInput", ""]
    assert all(bool(one.values) != bool(one.error.reason) for one in images + texts)


async def test_poison_item_fails_alone_and_is_not_remembered(service: Service) -> None:
    healthy = await service.embed_texts(["dog", "cat", "sun"])
    service.poison = service.clip.prepare_text("owl")
    dog, owl, sun = await service.embed_texts(["dog", "owl", "sun"])
    assert owl.error.reason == "Internal"
    assert "poison" in owl.error.message
    assert [dog, sun] == [healthy[0], healthy[2]]
    service.poison = None
    (owl,) = await service.embed_texts(["owl"])
    assert owl.values


# --- Rankings -------------------------------------------------------------------------------------


async def test_candidates_are_ranked_with_every_component(service: Service) -> None:
    (ranking,) = await service.score([service.unit()], score_settings(function=TOPK))
    assert [score.candidate for score in ranking.scores] == [0, 2, 1]
    assert [list(score.ranks) for score in ranking.scores] == [[0, 1], [3, 4], [2, 5]]
    assert [score.score for score in ranking.scores] == [0.5, 12.5, 14.5]
    assert [score.auc for score in ranking.scores] == [1.0, 0.25, 0.25]
    assert all(-1 <= score.image_products <= 1 for score in ranking.scores)
    assert not any(score.HasField("probe_correlation") for score in ranking.scores)
    assert ranking.labels[0] == 0


async def test_image_products_are_cosines_of_the_models_embeddings(service: Service) -> None:
    unit = service.unit()
    (ranking,) = await service.score([unit], score_settings(num_top_images=3, show_at=0))
    products = {score.candidate: score.image_products for score in ranking.scores}
    exemplars = np.array([one.values for one in await service.embed_images(unit.exemplars)])
    green = np.array((await service.embed_images(unit.candidates[1].images[:1]))[0].values)
    assert products[1] == pytest.approx(float(np.mean(exemplars @ green)), abs=1e-6)
    assert products[2] == -1, "none of its drawings is among the first three"


async def test_units_are_ranked_the_same_alone_and_beside_others(service: Service) -> None:
    units = [service.unit(), service.unit()]
    units[1].candidates[0].activations[:] = [0.5, 4.0]
    together = await service.score(units)
    assert together == [(await service.score([unit]))[0] for unit in units]
    assert together[0] != together[1]


async def test_bad_units_have_errors_and_the_good_ones_rankings(service: Service) -> None:
    cases: list[tuple[str, str]] = []
    units = [service.unit()]

    def add(expected: str, message: str) -> scorer_pb2.ScoreUnit:
        cases.append((expected, message))
        units.append(service.unit())
        return units[-1]

    del add("InvalidInput", "0 exemplars").exemplars[:]
    add("RequestTooLarge", "33 exemplars").exemplars.extend(service.put("red") * 31)
    del add("InvalidInput", "0 candidates").candidates[:]
    add("InvalidInput", "one for each drawing").candidates[0].activations.append(1.0)
    del add("InvalidInput", "1 to 2 drawings").candidates[2].images[1:]
    add("InvalidInput", "text is empty").candidates[1].text = " "
    add("InvalidInput", "not a finite number").candidates[1].activations[0] = float("nan")
    add("InvalidInput", "not a finite number").candidates[1].activations[0] = float("inf")
    add("BadImage", "Not a readable").candidates[1].images[0].data = b"no image"
    add("NotFound", "has no sha256:000").exemplars[0].ref = "sha256:" + "0" * 64
    units.append(service.unit())

    rankings = await service.score(units)
    assert rankings[0] == rankings[-1]
    assert rankings[0].scores
    for ranking, (expected, message) in zip(rankings[1:-1], cases, strict=True):
        assert ranking.error.reason == expected, message
        assert message in ranking.error.message
        assert not ranking.scores


async def test_one_candidate_with_one_drawing_is_ranked(service: Service) -> None:
    unit = service.unit()
    del unit.candidates[1:]
    del unit.candidates[0].images[1:]
    del unit.candidates[0].activations[1:]
    (ranking,) = await service.score([unit])
    (score,) = ranking.scores
    assert (list(score.ranks), list(ranking.labels)) == ([0], [0])
    assert not score.HasField("auc")


async def test_probe_correlation_is_pearsons_over_the_select_half(service: Service) -> None:
    refs = [one.ref for one in service.put(*((20 * n, 0, 200 - 9 * n) for n in range(12)))]
    digests = np.array([list(bytes.fromhex(ref.removeprefix("sha256:"))) for ref in refs], np.uint8)
    manifest, _ = build_manifest(digests, 0.3)
    selected = manifest.refs(manifest.select_indices())
    assert 2 < len(selected) < 12
    activations = np.random.default_rng(2).standard_normal(len(selected)).astype(np.float32)
    unit, other = service.unit(), service.unit()
    unit.probe_activations_ref = service.store.put_array(activations)
    settings = score_settings(probe_correlation=True, function=PROBE)
    found, missing = await service.score(
        [unit, other], settings, manifest_ref=manifest.save(service.store)
    )
    images = [types_pb2.Image(ref=ref) for ref in selected]
    pictures = np.array([one.values for one in await service.embed_images(images)])
    texts = [one.values for one in await service.embed_texts(["red", "green", "blue"])]
    for score in found.scores:
        cosines = pictures @ np.array(texts[score.candidate])
        expected = np.corrcoef(cosines, activations)[0, 1]
        assert score.probe_correlation == pytest.approx(expected, abs=1e-3)
        assert score.score == score.probe_correlation
    values = [score.score for score in found.scores]
    assert values == sorted(values, reverse=True)
    assert missing.error.reason == "InvalidInput"
    assert "probe_activations_ref" in missing.error.message


# --- Bad requests ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "field", "num", "high"),
    [
        ("EmbedTexts", "texts", 0, 1024),
        ("EmbedTexts", "texts", 1025, 1024),
        ("EmbedImages", "images", 0, 256),
        ("EmbedImages", "images", 257, 256),
        ("ScoreConcepts", "units", 0, 64),
        ("ScoreConcepts", "units", 65, 64),
    ],
)
async def test_request_with_too_few_or_too_many_items_is_refused(
    service: Service, method: str, field: str, num: int, high: int
) -> None:
    request_class = getattr(scorer_pb2, f"{method}Request")
    item: Any = {"texts": "dog", "images": types_pb2.Image(), "units": scorer_pb2.ScoreUnit()}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(service.stub, method)(request_class(**{field: [item[field]] * num}))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(caught.value) == ("RequestTooLarge" if num else "InvalidInput")
    assert str(num) in str(caught.value.details())
    assert not service.batches


@pytest.mark.parametrize("method", ["EmbedTexts", "EmbedImages", "ScoreConcepts"])
async def test_request_frozen_to_other_weights_is_refused(service: Service, method: str) -> None:
    requests = {
        "EmbedTexts": scorer_pb2.EmbedTextsRequest(texts=["dog"]),
        "EmbedImages": scorer_pb2.EmbedImagesRequest(images=service.put("red")),
        "ScoreConcepts": scorer_pb2.ScoreConceptsRequest(
            units=[service.unit()], settings=score_settings()
        ),
    }
    request: Any = requests[method]
    request.model_digest = "f" * 64
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(service.stub, method)(request)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason(caught.value) == "DigestMismatch"
    request.model_digest = service.clip.info.digest
    await getattr(service.stub, method)(request)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"function": 0}, "ScoringFunction"),
        ({"beta": 0}, "settings.beta is 0"),
        ({"num_top_images": 0}, "settings.num_top_images"),
        ({"absent_product": float("nan")}, "settings.absent_product is nan"),
        ({"num_labels": 0}, "settings.num_labels"),
        ({"max_label_cosine": 1.5}, "settings.max_label_cosine"),
        ({"num_digits": 0}, "settings.num_digits"),
        ({"num_digits": 10}, "settings.num_digits"),
        ({"show_at": -1}, "settings.show_at"),
        ({"show_at": 5000}, "settings.show_at"),
        ({"probe_correlation": True}, "manifest_ref is empty"),
        ({"function": PROBE}, "settings.probe_correlation must be set"),
    ],
)
async def test_settings_out_of_range_are_refused(
    service: Service, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.score([service.unit()], score_settings(**changes))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(caught.value) == "InvalidInput"
    assert message in str(caught.value.details())
    assert not service.batches


async def test_scoring_function_of_a_later_version_is_put_back(service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.score([service.unit()], score_settings(function=99))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason(caught.value) == "VersionSkew"
    assert "ScoringFunction is 99" in str(caught.value.details())
    assert not service.batches


async def test_request_is_refused_when_its_manifest_is_not_there(service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.score(
            [service.unit()],
            score_settings(probe_correlation=True),
            manifest_ref="sha256:" + "0" * 64,
        )
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
