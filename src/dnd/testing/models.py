"""Fakes of the services with models of their own: captioner, summarizer, synthesizer, scorer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dnd.artifacts import ArtifactStore
from dnd.convert import error_message
from dnd.errors import DndError, InvalidInput
from dnd.images import decode_image
from dnd.keys import digest_of
from dnd.serving.inputs import check_count, check_digest, read_bytes
from dnd.testing.faults import Faults, rpc
from dnd.testing.values import draw_picture, embed, number, pick_word
from dnd.v1 import (
    captioner_pb2,
    captioner_pb2_grpc,
    scorer_pb2,
    scorer_pb2_grpc,
    summarizer_pb2,
    summarizer_pb2_grpc,
    synthesizer_pb2,
    synthesizer_pb2_grpc,
    types_pb2,
)


class _WithModel:
    """What the four have in common: artifacts, faults, and weights to be frozen to."""

    name = ""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self.artifacts = artifacts
        self.faults = Faults()
        self.digest = digest_of("fake", self.name)

    def _info(self) -> types_pb2.ModelInfo:
        return types_pb2.ModelInfo(
            name=f"fake/{self.name}",
            digest=self.digest,
            architecture="Fake",
            dtype="float32",
            device="cpu",
        )

    def _error(self, method: str, item: object) -> DndError | None:
        return self.faults.error_of(method, item)


class FakeCaptioner(_WithModel, captioner_pb2_grpc.CaptionerServiceServicer):
    """Captions by the digest of an image. Items of its faults are references."""

    name = "captioner"

    @rpc
    def GetCaptionerModel(
        self, request: captioner_pb2.GetCaptionerModelRequest
    ) -> captioner_pb2.GetCaptionerModelResponse:
        return captioner_pb2.GetCaptionerModelResponse(model=self._info())

    @rpc
    def CaptionImages(
        self, request: captioner_pb2.CaptionImagesRequest
    ) -> captioner_pb2.CaptionImagesResponse:
        check_count("images", len(request.images), 1, 256)
        check_digest(request.model_digest, self.digest)
        return captioner_pb2.CaptionImagesResponse(captions=[self._one(i) for i in request.images])

    def _one(self, image: types_pb2.Image) -> captioner_pb2.Caption:
        try:
            data = read_bytes(image, self.artifacts)
            decode_image(data)
            error = self._error("CaptionImages", image.ref)
            if error is not None:
                raise error
        except DndError as error:
            return captioner_pb2.Caption(error=error_message(error))
        words = [pick_word(data.hex(), place) for place in range(2)]
        return captioner_pb2.Caption(text=f"a {words[0]} beside a {words[1]}")


class FakeSummarizer(_WithModel, summarizer_pb2_grpc.SummarizerServiceServicer):
    """Concepts are words of the captions. Items of its faults are seeds of units."""

    name = "summarizer"

    @rpc
    def GetSummarizerModel(
        self, request: summarizer_pb2.GetSummarizerModelRequest
    ) -> summarizer_pb2.GetSummarizerModelResponse:
        return summarizer_pb2.GetSummarizerModelResponse(model=self._info())

    @rpc
    def ProposeConcepts(
        self, request: summarizer_pb2.ProposeConceptsRequest
    ) -> summarizer_pb2.ProposeConceptsResponse:
        check_count("units", len(request.units), 1, 64)
        check_digest(request.model_digest, self.digest)
        proposals = []
        for unit in request.units:
            check_count("captions of a unit", len(unit.captions), 1, 32)
            error = self._error("ProposeConcepts", unit.seed)
            if error is not None:
                proposals.append(summarizer_pb2.Proposal(error=error_message(error)))
            else:
                proposals.append(self._propose(unit, request.settings))
        return summarizer_pb2.ProposeConceptsResponse(proposals=proposals)

    def _propose(
        self, unit: summarizer_pb2.UnitCaptions, settings: summarizer_pb2.ProposeSettings
    ) -> summarizer_pb2.Proposal:
        nouns = [word for caption in unit.captions for word in caption.split()[1::3]]
        concepts = dict.fromkeys(
            nouns[number(unit.seed, call) % len(nouns)] for call in range(settings.num_summaries)
        )
        pool = [
            types_pb2.Candidate(text=text, origin=types_pb2.CANDIDATE_ORIGIN_SUMMARY)
            for text in concepts
        ]
        known = set(concepts)
        common = sorted(set(nouns), key=lambda word: (-nouns.count(word), word))
        for text in common[: settings.num_phrases]:
            if text not in known:
                origin = types_pb2.CANDIDATE_ORIGIN_CAPTION_PHRASE
                pool.append(types_pb2.Candidate(text=text, origin=origin))
        pool += [one for one in unit.candidates if one.text not in known]
        num_calls = 1 if settings.one_call else settings.num_summaries
        return summarizer_pb2.Proposal(
            candidates=pool[: settings.max_candidates],
            tokens=summarizer_pb2.TokenUse(
                num_calls=num_calls,
                num_input_tokens=num_calls * sum(len(c.split()) for c in unit.captions),
                num_output_tokens=num_calls,
            ),
        )


class FakeSynthesizer(_WithModel, synthesizer_pb2_grpc.SynthesizerServiceServicer):
    """Coloured squares. Items of its faults are (prompt, seed)."""

    name = "synthesizer"

    @rpc
    def GetSynthesizerModel(
        self, request: synthesizer_pb2.GetSynthesizerModelRequest
    ) -> synthesizer_pb2.GetSynthesizerModelResponse:
        return synthesizer_pb2.GetSynthesizerModelResponse(model=self._info())

    @rpc
    def SynthesizeImages(
        self, request: synthesizer_pb2.SynthesizeImagesRequest
    ) -> synthesizer_pb2.SynthesizeImagesResponse:
        check_count("drawings", len(request.drawings), 1, 256)
        check_digest(request.model_digest, self.digest)
        settings = request.settings
        images = []
        for drawing in request.drawings:
            if not 1 <= len(drawing.prompt) <= 400:
                raise InvalidInput(
                    f"A prompt has {len(drawing.prompt)} characters: expected 1 to 400."
                )
            error = self._error("SynthesizeImages", (drawing.prompt, drawing.seed))
            if error is not None:
                images.append(synthesizer_pb2.SyntheticImage(error=error_message(error)))
                continue
            picture = draw_picture(
                settings.size,
                drawing.prompt,
                drawing.seed,
                settings.num_steps,
                settings.guidance,
                settings.scheduler,
            )
            ref = self.artifacts.put_bytes(picture)
            images.append(synthesizer_pb2.SyntheticImage(image=types_pb2.Image(ref=ref)))
        return synthesizer_pb2.SynthesizeImagesResponse(images=images)


class FakeScorer(_WithModel, scorer_pb2_grpc.ScorerServiceServicer):
    """Ranks by TopK squared mean, whatever function is asked for. Items of its faults are the
    tuples of a unit's candidate texts."""

    name = "scorer"

    @rpc
    def GetScorerModel(
        self, request: scorer_pb2.GetScorerModelRequest
    ) -> scorer_pb2.GetScorerModelResponse:
        return scorer_pb2.GetScorerModelResponse(model=self._info())

    @rpc
    def ScoreConcepts(
        self, request: scorer_pb2.ScoreConceptsRequest
    ) -> scorer_pb2.ScoreConceptsResponse:
        check_count("units", len(request.units), 1, 64)
        check_digest(request.model_digest, self.digest)
        rankings = []
        for unit in request.units:
            check_count("candidates of a unit", len(unit.candidates), 1, 32)
            texts = tuple(one.text for one in unit.candidates)
            error = self._error("ScoreConcepts", texts)
            if error is not None:
                rankings.append(scorer_pb2.Ranking(error=error_message(error)))
            else:
                rankings.append(self._rank(unit, request.settings))
        return scorer_pb2.ScoreConceptsResponse(rankings=rankings)

    def _rank(
        self, unit: scorer_pb2.ScoreUnit, settings: scorer_pb2.ScoreSettings
    ) -> scorer_pb2.Ranking:
        owners = [n for n, one in enumerate(unit.candidates) for _ in one.images]
        values = np.array([a for one in unit.candidates for a in one.activations])
        order = np.argsort(-values, kind="stable")
        ranks: dict[int, list[int]] = {n: [] for n in range(len(unit.candidates))}
        for rank, image in enumerate(order):
            ranks[owners[image]].append(rank)
        exemplars = np.mean([embed("image", image.ref) for image in unit.exemplars], axis=0)
        top = {int(image) for image in order[: settings.num_top_images]}
        refs = [image.ref for one in unit.candidates for image in one.images]
        scores = []
        for number_, candidate in enumerate(unit.candidates):
            own = np.array(ranks[number_])
            products = [
                float(embed("image", refs[i]) @ exemplars) for i in top if owners[i] == number_
            ]
            scores.append(
                scorer_pb2.ConceptScore(
                    candidate=number_,
                    score=float(np.mean(np.sort(own)[: settings.beta] ** 2)),
                    ranks=own.tolist(),
                    mean_rank=float(np.mean(own)),
                    squared_mean=float(np.mean(own**2)),
                    topk_squared_mean=float(np.mean(np.sort(own)[: settings.beta] ** 2)),
                    image_products=float(np.mean(products))
                    if products
                    else settings.absent_product,
                    probe_correlation=(
                        float(embed("probe", candidate.text)[0])
                        if settings.probe_correlation
                        else None
                    ),
                    auc=_auc(values, np.array(owners) == number_),
                )
            )
        scores.sort(key=lambda score: (score.score, score.candidate))
        for place, score in enumerate(scores):
            score.topk_compare = (len(scores) - place) * score.image_products
        labels = list(range(min(settings.num_labels, len(scores))))
        return scorer_pb2.Ranking(scores=scores, labels=labels)

    @rpc
    def EmbedTexts(self, request: scorer_pb2.EmbedTextsRequest) -> scorer_pb2.EmbedTextsResponse:
        check_count("texts", len(request.texts), 1, 1024)
        check_digest(request.model_digest, self.digest)
        return scorer_pb2.EmbedTextsResponse(
            embeddings=_embeddings([embed("text", text) for text in request.texts])
        )

    @rpc
    def EmbedImages(self, request: scorer_pb2.EmbedImagesRequest) -> scorer_pb2.EmbedImagesResponse:
        check_count("images", len(request.images), 1, 256)
        check_digest(request.model_digest, self.digest)
        answers = []
        for image in request.images:
            try:
                decode_image(read_bytes(image, self.artifacts))
                answers += _embeddings([embed("image", image.ref)])
            except DndError as error:
                answers.append(scorer_pb2.Embedding(error=error_message(error)))
        return scorer_pb2.EmbedImagesResponse(embeddings=answers)


def _embeddings(vectors: Sequence[np.ndarray]) -> list[scorer_pb2.Embedding]:
    return [scorer_pb2.Embedding(values=vector.tolist()) for vector in vectors]


def _auc(values: np.ndarray, own: np.ndarray) -> float | None:
    """Share of (own, other) pairs in which the own value is higher; ties count half."""
    if own.all():
        return None
    differences = values[own][:, None] - values[~own][None, :]
    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))
