"""dnd.v1.ScorerService: checks and converts; ranker and embedder compute."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

from dnd.bucket_artifacts import open_artifacts
from dnd.convert import (
    enum_member,
    error_message,
    field_enum,
    from_message,
    to_item,
    to_message,
)
from dnd.errors import DndError, InvalidInput
from dnd.profiles import ScoreSettings, ScoringFunction, Similarity
from dnd.serving import DynamicBatcher, Metrics, StageService
from dnd.serving.inputs import (
    check_count,
    check_digest,
    check_range,
    remaining_s,
    request_context,
)
from dnd.settings import ModelServerSettings
from dnd.types import ModelInfo, OrError
from dnd.v1 import scorer_pb2, scorer_pb2_grpc, types_pb2
from dnd_services.scorer.backend import Bucket, ClipModel, Prepared
from dnd_services.scorer.cache import EmbeddingCache, Vector
from dnd_services.scorer.dissect import Dissector
from dnd_services.scorer.embedding import Embedder
from dnd_services.scorer.kept import KeptWork
from dnd_services.scorer.probe import ProbeEmbeddings, TextEmbeddings
from dnd_services.scorer.ranking import AskedCandidate, AskedUnit, Ranker

FULL_NAME = "dnd.v1.ScorerService"
MAX_UNITS = 64
MAX_CANDIDATES = 32
MAX_EXEMPLARS = 32
MAX_DRAWINGS = 100
MAX_TEXTS = 1024
MAX_IMAGES = 256
MAX_SIDE = 4096
MAX_CHARACTERS = 1000
MAX_CONCEPTS = 100


class ScorerServicer(scorer_pb2_grpc.ScorerServiceServicer):
    """Rankings and embeddings, batched over callers.

    Args:
        info: The model.
        embedder: Embeds texts and images.
        ranker: Ranks candidates.
        dissector: Labels layers from concept sets.
    """

    def __init__(
        self, info: ModelInfo, embedder: Embedder, ranker: Ranker, dissector: Dissector
    ) -> None:
        self._info = info
        self._embedder = embedder
        self._ranker = ranker
        self._dissector = dissector

    async def GetScorerModel(
        self, request: scorer_pb2.GetScorerModelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> scorer_pb2.GetScorerModelResponse:
        return scorer_pb2.GetScorerModelResponse(model=to_message(self._info, types_pb2.ModelInfo))

    async def ScoreConcepts(
        self, request: scorer_pb2.ScoreConceptsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> scorer_pb2.ScoreConceptsResponse:
        check_count("units", len(request.units), 1, MAX_UNITS)
        check_digest(request.model_digest, self._info.digest)
        settings = from_message(request.settings, ScoreSettings)
        _check(settings, request.manifest_ref)
        rankings = await self._ranker.rank(
            [_read_unit(unit) for unit in request.units],
            settings,
            request.manifest_ref,
            context=request_context(request),
            timeout_s=remaining_s(context),
        )
        return scorer_pb2.ScoreConceptsResponse(
            rankings=[to_item(ranking, scorer_pb2.Ranking) for ranking in rankings]
        )

    async def DissectLayer(
        self, request: scorer_pb2.DissectLayerRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> scorer_pb2.DissectLayerResponse:
        check_digest(request.model_digest, self._info.digest)
        check_range("num_concepts", request.num_concepts, 1, MAX_CONCEPTS)
        ref = await self._dissector.dissect(
            request.select_ref,
            request.manifest_ref,
            request.concepts_ref,
            enum_member(request.similarity, field_enum(type(request), "similarity"), Similarity),
            request.num_concepts,
            request.units,
            remaining_s(context),
        )
        return scorer_pb2.DissectLayerResponse(dissection_ref=ref)

    async def EmbedTexts(
        self, request: scorer_pb2.EmbedTextsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> scorer_pb2.EmbedTextsResponse:
        check_count("texts", len(request.texts), 1, MAX_TEXTS)
        check_digest(request.model_digest, self._info.digest)
        checked = [_check_text(text) for text in request.texts]
        answers = iter(
            await self._embedder.embed_texts(
                [text for text in checked if not isinstance(text, DndError)],
                context=request_context(request),
                timeout_s=remaining_s(context),
            )
        )
        vectors = [text if isinstance(text, DndError) else next(answers) for text in checked]
        return scorer_pb2.EmbedTextsResponse(embeddings=await asyncio.to_thread(_write, vectors))

    async def EmbedImages(
        self, request: scorer_pb2.EmbedImagesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> scorer_pb2.EmbedImagesResponse:
        check_count("images", len(request.images), 1, MAX_IMAGES)
        check_digest(request.model_digest, self._info.digest)
        check_range("show_at", request.show_at, 0, MAX_SIDE)
        vectors = await self._embedder.embed_images(
            request.images,
            request.show_at,
            context=request_context(request),
            timeout_s=remaining_s(context),
        )
        return scorer_pb2.EmbedImagesResponse(embeddings=await asyncio.to_thread(_write, vectors))


def stage_service(
    clip: ClipModel, settings: ModelServerSettings, cache_mb: int, metrics: Metrics
) -> StageService:
    """The servicer with its batcher and caches, ready to be added to a server."""
    batcher = DynamicBatcher[Bucket, Prepared, Vector](
        clip.embed,
        max_batch=settings.max_batch,
        max_queue=settings.max_queue,
        max_wait_ms=settings.max_wait_ms,
        metrics=metrics,
    )
    store = open_artifacts(settings.artifacts)
    embedder = Embedder(clip, batcher, store, EmbeddingCache(cache_mb * 2**20), metrics)
    kept = KeptWork(store)
    probe = ProbeEmbeddings(embedder, store, clip.info, kept)
    texts = TextEmbeddings(embedder, store, clip.info, kept)
    dissector = Dissector(probe, texts, store, clip.info, kept, clip.device)
    servicer = ScorerServicer(clip.info, embedder, Ranker(embedder, probe, store), dissector)

    def add(server: grpc.aio.Server) -> None:
        scorer_pb2_grpc.add_ScorerServiceServicer_to_server(servicer, server)

    async def close() -> None:
        await kept.close()
        await batcher.close()

    return StageService(FULL_NAME, add, close)


def _check(settings: ScoreSettings, manifest_ref: str) -> None:
    check_range("settings.beta", settings.beta, 1, MAX_DRAWINGS)
    check_range("settings.num_top_images", settings.num_top_images, 1, 2**31)
    check_range("settings.absent_product", settings.absent_product, -1, 1)
    check_range("settings.num_labels", settings.num_labels, 1, MAX_CANDIDATES)
    check_range("settings.max_label_cosine", settings.max_label_cosine, -1, 1)
    check_range("settings.num_digits", settings.num_digits, 1, 9)
    check_range("settings.show_at", settings.show_at, 0, MAX_SIDE)
    if settings.probe_correlation and not manifest_ref:
        raise InvalidInput(
            "settings.probe_correlation is set, and manifest_ref is empty: name the probe set's "
            "manifest, or ask for no probe correlation."
        )
    if settings.function is ScoringFunction.PROBE_CORRELATION and not settings.probe_correlation:
        raise InvalidInput(
            "settings.function is probe correlation: settings.probe_correlation must be set too."
        )


def _read_unit(unit: scorer_pb2.ScoreUnit) -> OrError[AskedUnit]:
    """A unit as the ranker takes it, or what is wrong with it."""
    try:
        check_count("exemplars", len(unit.exemplars), 1, MAX_EXEMPLARS)
        check_count("candidates", len(unit.candidates), 1, MAX_CANDIDATES)
        numbers = {len(one.images) for one in unit.candidates}
        if len(numbers) > 1:
            raise InvalidInput(
                f"The candidates have {min(numbers)} to {max(numbers)} drawings: expected equally "
                "many for all, since ranks over unequal numbers cannot be compared."
            )
        for one in unit.candidates:
            check_count(f"drawings of {one.text!r}", len(one.images), 1, MAX_DRAWINGS)
            if len(one.activations) != len(one.images):
                raise InvalidInput(
                    f"Candidate {one.text!r} has {len(one.images)} drawings and "
                    f"{len(one.activations)} activations: expected one for each drawing."
                )
            text = _check_text(one.text)
            if isinstance(text, DndError):
                raise text
    except DndError as error:
        return error
    return AskedUnit(
        exemplars=tuple(unit.exemplars),
        candidates=tuple(
            AskedCandidate(one.text, tuple(one.images), tuple(one.activations))
            for one in unit.candidates
        ),
        probe_activations_ref=unit.probe_activations_ref,
    )


def _check_text(text: str) -> OrError[str]:
    if not text.strip():
        return InvalidInput("The text is empty.")
    if len(text) > MAX_CHARACTERS:
        return InvalidInput(
            f"The text has {len(text)} characters: expected at most {MAX_CHARACTERS}."
        )
    return text


def _write(vectors: Sequence[OrError[Vector]]) -> list[scorer_pb2.Embedding]:
    return [
        scorer_pb2.Embedding(error=error_message(vector))
        if isinstance(vector, DndError)
        else scorer_pb2.Embedding(values=vector.tolist())
        for vector in vectors
    ]
