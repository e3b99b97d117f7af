"""Fakes that do as little as a service can: what is measured around them is everything else.

They answer with messages of the same shape as the other fakes, and with what `Faults.latency_s`
asks for, but draw no picture, read no picture and think about nothing.
"""

from __future__ import annotations

import threading
import time

import numpy as np

from dnd.artifacts import ArtifactStore, reference_of
from dnd.convert import enum_value
from dnd.serving.inputs import check_count, check_digest
from dnd.testing.fakes import Fakes
from dnd.testing.faults import rpc
from dnd.testing.models import FakeCaptioner, FakeSummarizer, FakeSynthesizer
from dnd.testing.scorer import FakeScorer
from dnd.testing.target import (
    ACTIVITY,
    FakeActivations,
    activity_of,
    num_exemplars_of,
    num_units_of,
)
from dnd.testing.values import WORDS
from dnd.v1 import (
    activations_pb2,
    captioner_pb2,
    scorer_pb2,
    summarizer_pb2,
    synthesizer_pb2,
    types_pb2,
)

_PICTURES = tuple(reference_of(f"picture {place}".encode()) for place in range(64))


class IdleActivations(FakeActivations):
    """Exemplars are references to pictures that nobody has drawn, measurements are zeros."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        super().__init__(artifacts)
        self._zeros: dict[tuple[int, int], str] = {}
        self._lock = threading.Lock()

    @rpc
    def SelectExemplars(
        self, request: activations_pb2.SelectExemplarsRequest
    ) -> activations_pb2.SelectExemplarsResponse:
        check_digest(request.model_digest, self.digest)
        check_count("units", len(request.units), 1, 1024)
        return activations_pb2.SelectExemplarsResponse(
            units=[_exemplars(unit, request.settings.num_exemplars) for unit in request.units]
        )

    @rpc
    def MeasureImages(
        self, request: activations_pb2.MeasureImagesRequest
    ) -> activations_pb2.MeasureImagesResponse:
        check_digest(request.model_digest, self.digest)
        check_count("sets", len(request.sets), 1, 1024)
        sizes = [num_units_of(request.model, layer) for layer in request.layers]
        return activations_pb2.MeasureImagesResponse(
            measurements=[
                activations_pb2.Measurement(
                    key=one.key,
                    activations_refs=[self._zeros_of(len(one.images), size) for size in sizes],
                )
                for one in request.sets
            ]
        )

    def _zeros_of(self, num_images: int, num_units: int) -> str:
        with self._lock:
            if (num_images, num_units) not in self._zeros:
                zeros = np.zeros((num_images, num_units), np.float32)
                self._zeros[num_images, num_units] = self.artifacts.put_array(zeros)
            return self._zeros[num_images, num_units]


def _exemplars(unit: int, num: int) -> activations_pb2.UnitExemplars:
    activity = activity_of(unit)
    return activations_pb2.UnitExemplars(
        unit=unit,
        exemplars=[
            activations_pb2.Exemplar(
                image=types_pb2.Image(ref=picture),
                source=types_pb2.Image(ref=picture),
                activation=10.0 - place,
            )
            for place in range(num_exemplars_of(unit, num))
            if (picture := _PICTURES[(unit + place) % len(_PICTURES)])
        ],
        activity=enum_value(activity, ACTIVITY),  # type: ignore[arg-type]
    )


class IdleCaptioner(FakeCaptioner):
    """The same caption for every picture."""

    @rpc
    def CaptionImages(
        self, request: captioner_pb2.CaptionImagesRequest
    ) -> captioner_pb2.CaptionImagesResponse:
        check_count("images", len(request.images), 1, 256)
        check_digest(request.model_digest, self.digest)
        caption = captioner_pb2.Caption(text="a cat beside a door")
        return captioner_pb2.CaptionImagesResponse(captions=[caption] * len(request.images))


class IdleSummarizer(FakeSummarizer):
    """Two concepts that follow from the unit's seed: words, or concepts that no other unit has.

    Attributes:
        unlike: Whether no two units share a concept, so that nothing that is drawn is shared.
    """

    unlike = False

    @rpc
    def ProposeConcepts(
        self, request: summarizer_pb2.ProposeConceptsRequest
    ) -> summarizer_pb2.ProposeConceptsResponse:
        check_count("units", len(request.units), 1, 64)
        check_digest(request.model_digest, self.digest)
        return summarizer_pb2.ProposeConceptsResponse(
            proposals=[
                summarizer_pb2.Proposal(
                    candidates=[
                        types_pb2.Candidate(
                            text=self._concept(unit.seed + place),
                            origin=types_pb2.CANDIDATE_ORIGIN_SUMMARY,
                        )
                        for place in range(2)
                    ],
                    tokens=summarizer_pb2.TokenUse(num_calls=1),
                )
                for unit in request.units
            ]
        )

    def _concept(self, seed: int) -> str:
        return f"thing {seed}" if self.unlike else WORDS[seed % len(WORDS)]


class IdleSynthesizer(FakeSynthesizer):
    """References to drawings that nobody has drawn.

    Attributes:
        batch_s: How long its one device works on a batch, seconds.
        batch_size: Drawings of a batch.
    """

    batch_s = 0.0
    batch_size = 8

    def __init__(self, artifacts: ArtifactStore) -> None:
        super().__init__(artifacts)
        self._device = threading.Lock()

    @rpc
    def SynthesizeImages(
        self, request: synthesizer_pb2.SynthesizeImagesRequest
    ) -> synthesizer_pb2.SynthesizeImagesResponse:
        check_count("drawings", len(request.drawings), 1, 256)
        check_digest(request.model_digest, self.digest)
        for _ in range(0, len(request.drawings) if self.batch_s else 0, self.batch_size):
            with self._device:
                time.sleep(self.batch_s)
        return synthesizer_pb2.SynthesizeImagesResponse(
            images=[
                synthesizer_pb2.SyntheticImage(
                    image=types_pb2.Image(ref=reference_of(f"{one.prompt} {one.seed}".encode()))
                )
                for one in request.drawings
            ]
        )


class IdleScorer(FakeScorer):
    """Ranks the candidates in the order in which they come."""

    @rpc
    def ScoreConcepts(
        self, request: scorer_pb2.ScoreConceptsRequest
    ) -> scorer_pb2.ScoreConceptsResponse:
        check_count("units", len(request.units), 1, 64)
        check_digest(request.model_digest, self.digest)
        num_labels = request.settings.num_labels
        return scorer_pb2.ScoreConceptsResponse(
            rankings=[_ranking(len(unit.candidates), num_labels) for unit in request.units]
        )


def _ranking(num_candidates: int, num_labels: int) -> scorer_pb2.Ranking:
    return scorer_pb2.Ranking(
        scores=[
            scorer_pb2.ConceptScore(candidate=place, score=float(place), mean_rank=float(place))
            for place in range(num_candidates)
        ],
        labels=list(range(min(num_labels, num_candidates))),
    )


class IdleFakes(Fakes):
    """Five services that do next to nothing, and a judge."""

    summarizer: IdleSummarizer
    synthesizer: IdleSynthesizer

    def __init__(self, artifacts: ArtifactStore) -> None:
        super().__init__(artifacts)
        self.activations = IdleActivations(artifacts)
        self.captioner = IdleCaptioner(artifacts)
        self.summarizer = IdleSummarizer(artifacts)
        self.synthesizer = IdleSynthesizer(artifacts)
        self.scorer = IdleScorer(artifacts)
