"""Fakes of services with models of their own: captioner, summarizer, synthesizer."""

from __future__ import annotations

from dnd.artifacts import ArtifactStore
from dnd.convert import error_message
from dnd.errors import BadAnswer, DndError, InvalidInput
from dnd.images import decode_image
from dnd.keys import digest_of
from dnd.serving.inputs import check_count, check_digest, check_range, read_bytes
from dnd.testing.faults import Faults, rpc
from dnd.testing.values import draw_picture, number, pick_word
from dnd.v1 import (
    captioner_pb2,
    captioner_pb2_grpc,
    summarizer_pb2,
    summarizer_pb2_grpc,
    synthesizer_pb2,
    synthesizer_pb2_grpc,
    types_pb2,
)


class WithModel:
    """What such fakes have in common: artifacts, faults, and weights to be frozen to."""

    name: str

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


class FakeCaptioner(WithModel, captioner_pb2_grpc.CaptionerServiceServicer):
    """Captions of images and labels of montages, by their digests, as a vision-language model.

    Items of its faults are references.
    """

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
        check_range("num_labels", request.num_labels, 0, 16)
        return captioner_pb2.CaptionImagesResponse(
            captions=[self._one(i, request.num_labels) for i in request.images]
        )

    def _one(self, image: types_pb2.Image, num_labels: int) -> captioner_pb2.Caption:
        try:
            data = read_bytes(image, self.artifacts)
            decode_image(data)
            error = self._error("CaptionImages", image.ref)
            if error is not None:
                raise error
        except DndError as error:
            return captioner_pb2.Caption(error=error_message(error))
        if num_labels:
            words = [pick_word("label", data.hex(), place) for place in range(num_labels)]
            return captioner_pb2.Caption(labels=dict.fromkeys(words))
        words = [pick_word(data.hex(), place) for place in range(2)]
        return captioner_pb2.Caption(text=f"a {words[0]} beside a {words[1]}")


class FakeSummarizer(WithModel, summarizer_pb2_grpc.SummarizerServiceServicer):
    """Concepts are words of the captions that no contrast has, where there are any.

    Items of its faults are seeds of units.
    """

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
            check_count("contrast captions of a unit", len(unit.contrast), 0, 16)
            error = self._error("ProposeConcepts", unit.seed)
            try:
                if error is not None:
                    raise error
                proposals.append(self._propose(unit, request.settings))
            except DndError as reason:
                proposals.append(summarizer_pb2.Proposal(error=error_message(reason)))
        return summarizer_pb2.ProposeConceptsResponse(proposals=proposals)

    def _propose(
        self, unit: summarizer_pb2.UnitCaptions, settings: summarizer_pb2.ProposeSettings
    ) -> summarizer_pb2.Proposal:
        nouns = [word for caption in unit.captions for word in caption.split()[1::3]]
        elsewhere = {word for caption in unit.contrast for word in caption.split()}
        nouns = [word for word in nouns if word not in elsewhere] or nouns
        if not nouns:
            raise BadAnswer("There is no word in the captions to make a concept of.")
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


class FakeSynthesizer(WithModel, synthesizer_pb2_grpc.SynthesizerServiceServicer):
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
            error = self._error("SynthesizeImages", (drawing.prompt, drawing.seed))
            if not drawing.prompt.strip() or len(drawing.prompt) > 400:
                error = InvalidInput(
                    f"A prompt has {len(drawing.prompt)} characters: expected 1 to 400."
                )
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
