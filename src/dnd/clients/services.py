"""Clients of the other stage services, and all five together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dnd import convert
from dnd.artifacts import ArtifactStore
from dnd.clients.activations import ActivationsClient
from dnd.clients.base import Calls, StageClient, in_order
from dnd.clients.channels import DEADLINE_S, EndpointPool
from dnd.errors import FailedPrecondition
from dnd.profiles import (
    CaptionSettings,
    ProposeSettings,
    ScoreSettings,
    Similarity,
    SynthesisSettings,
)
from dnd.tls import TlsFiles
from dnd.types import (
    Drawing,
    LayerIndex,
    ModelInfo,
    OrError,
    Proposal,
    Ranking,
    RequestContext,
    ScoreUnit,
    UnitActivity,
    UnitCaptions,
)
from dnd.v1 import (
    captioner_pb2,
    captioner_pb2_grpc,
    scorer_pb2,
    scorer_pb2_grpc,
    summarizer_pb2,
    summarizer_pb2_grpc,
    synthesizer_pb2,
    synthesizer_pb2_grpc,
)


class CaptionerClient(StageClient):
    """Client of dnd.v1.CaptionerService."""

    def get_model(self) -> ModelInfo:
        answer = self._call(
            captioner_pb2_grpc.CaptionerServiceStub,
            "GetCaptionerModel",
            captioner_pb2.GetCaptionerModelRequest(),
            captioner_pb2.GetCaptionerModelResponse,
        )
        return convert.from_message(answer.model, ModelInfo)

    def caption_images(
        self, images: Sequence[str], settings: CaptionSettings, model_digest: str = ""
    ) -> list[OrError[str]]:
        """One caption for each image reference, in order."""
        found = self._ask(images, settings, model_digest, num_labels=0)
        return [convert.item_error(m) or m.text for m in found]

    def label_montages(
        self,
        images: Sequence[str],
        num_labels: int,
        settings: CaptionSettings,
        model_digest: str = "",
    ) -> list[OrError[tuple[str, ...]]]:
        """For each montage labels of what its tiles have in common, 1 to `num_labels`, in order.

        Raises:
            FailedPrecondition: The captioner is no vision-language model.
        """
        found = self._ask(images, settings, model_digest, num_labels=num_labels)
        return [convert.item_error(m) or tuple(m.labels) for m in found]

    def _ask(
        self, images: Sequence[str], settings: CaptionSettings, model_digest: str, num_labels: int
    ) -> Sequence[captioner_pb2.Caption]:
        answer = self._call(
            captioner_pb2_grpc.CaptionerServiceStub,
            "CaptionImages",
            captioner_pb2.CaptionImagesRequest(
                images=convert.images(images),
                settings=convert.to_message(settings, captioner_pb2.CaptionSettings),
                model_digest=model_digest,
                num_labels=num_labels,
            ),
            captioner_pb2.CaptionImagesResponse,
        )
        in_order(len(images), answer.captions, self.pool.name)
        return answer.captions


class SummarizerClient(StageClient):
    """Client of dnd.v1.SummarizerService."""

    def get_model(self) -> ModelInfo:
        answer = self._call(
            summarizer_pb2_grpc.SummarizerServiceStub,
            "GetSummarizerModel",
            summarizer_pb2.GetSummarizerModelRequest(),
            summarizer_pb2.GetSummarizerModelResponse,
        )
        return convert.from_message(answer.model, ModelInfo)

    def propose_concepts(
        self, units: Sequence[UnitCaptions], settings: ProposeSettings, model_digest: str = ""
    ) -> list[OrError[Proposal]]:
        """The candidate pool of each unit, in order."""
        answer = self._call(
            summarizer_pb2_grpc.SummarizerServiceStub,
            "ProposeConcepts",
            summarizer_pb2.ProposeConceptsRequest(
                units=[convert.to_message(one, summarizer_pb2.UnitCaptions) for one in units],
                settings=convert.to_message(settings, summarizer_pb2.ProposeSettings),
                model_digest=model_digest,
            ),
            summarizer_pb2.ProposeConceptsResponse,
        )
        in_order(len(units), answer.proposals, self.pool.name)
        return [convert.from_item(m, Proposal) for m in answer.proposals]


class SynthesizerClient(StageClient):
    """Client of dnd.v1.SynthesizerService."""

    def get_model(self) -> ModelInfo:
        answer = self._call(
            synthesizer_pb2_grpc.SynthesizerServiceStub,
            "GetSynthesizerModel",
            synthesizer_pb2.GetSynthesizerModelRequest(),
            synthesizer_pb2.GetSynthesizerModelResponse,
        )
        return convert.from_message(answer.model, ModelInfo)

    def synthesize_images(
        self, drawings: Sequence[Drawing], settings: SynthesisSettings, model_digest: str = ""
    ) -> list[OrError[str]]:
        """A reference to each drawing, in order."""
        answer = self._call(
            synthesizer_pb2_grpc.SynthesizerServiceStub,
            "SynthesizeImages",
            synthesizer_pb2.SynthesizeImagesRequest(
                drawings=[convert.to_message(one, synthesizer_pb2.Drawing) for one in drawings],
                settings=convert.to_message(settings, synthesizer_pb2.SynthesisSettings),
                model_digest=model_digest,
            ),
            synthesizer_pb2.SynthesizeImagesResponse,
        )
        in_order(len(drawings), answer.images, self.pool.name)
        return [convert.item_error(m) or m.image.ref for m in answer.images]


class ScorerClient(StageClient):
    """Client of dnd.v1.ScorerService."""

    def get_model(self) -> ModelInfo:
        answer = self._call(
            scorer_pb2_grpc.ScorerServiceStub,
            "GetScorerModel",
            scorer_pb2.GetScorerModelRequest(),
            scorer_pb2.GetScorerModelResponse,
        )
        return convert.from_message(answer.model, ModelInfo)

    def score_concepts(
        self,
        units: Sequence[ScoreUnit],
        settings: ScoreSettings,
        manifest_ref: str = "",
        model_digest: str = "",
    ) -> list[OrError[Ranking]]:
        """The ranking of each unit's candidates, in order."""
        answer = self._call(
            scorer_pb2_grpc.ScorerServiceStub,
            "ScoreConcepts",
            scorer_pb2.ScoreConceptsRequest(
                units=[convert.to_message(one, scorer_pb2.ScoreUnit) for one in units],
                settings=convert.to_message(settings, scorer_pb2.ScoreSettings),
                manifest_ref=manifest_ref,
                model_digest=model_digest,
            ),
            scorer_pb2.ScoreConceptsResponse,
        )
        in_order(len(units), answer.rankings, self.pool.name)
        return [convert.from_item(m, Ranking) for m in answer.rankings]

    def dissect_layer(
        self,
        index: LayerIndex,
        concepts_ref: str,
        similarity: Similarity,
        num_concepts: int,
        model_digest: str = "",
    ) -> str:
        """The reference of a layer's dissection (`dnd.dissection`); dead and tied units have none.

        Raises:
            FailedPrecondition: The index was built without keeping its activations, or no unit of
                the layer can be labelled.
        """
        units = [
            unit
            for unit, activity in enumerate(index.activities)
            if activity not in (UnitActivity.DEAD, UnitActivity.TIED)
        ]
        if not index.select_ref:
            raise FailedPrecondition(
                f"The activations of layer {index.layer!r} were not kept: CLIP-Dissect needs "
                "index.keep_matrix = true."
            )
        if not units:
            raise FailedPrecondition(f"All units of layer {index.layer!r} are dead or tied.")
        request = scorer_pb2.DissectLayerRequest(
            select_ref=index.select_ref,
            manifest_ref=index.manifest_ref,
            concepts_ref=concepts_ref,
            similarity=convert.enum_value(
                similarity, convert.field_enum(scorer_pb2.DissectLayerRequest, "similarity")
            ),  # type: ignore[arg-type]
            num_concepts=num_concepts,
            units=units if len(units) < len(index.activities) else (),
            model_digest=model_digest,
        )
        answer = self._call(
            scorer_pb2_grpc.ScorerServiceStub,
            "DissectLayer",
            request,
            scorer_pb2.DissectLayerResponse,
        )
        return answer.dissection_ref

    def embed_texts(
        self, texts: Sequence[str], model_digest: str = ""
    ) -> list[OrError[tuple[float, ...]]]:
        """L2-normalised embeddings of texts, in order."""
        answer = self._call(
            scorer_pb2_grpc.ScorerServiceStub,
            "EmbedTexts",
            scorer_pb2.EmbedTextsRequest(texts=texts, model_digest=model_digest),
            scorer_pb2.EmbedTextsResponse,
        )
        in_order(len(texts), answer.embeddings, self.pool.name)
        return [convert.item_error(m) or tuple(m.values) for m in answer.embeddings]

    def embed_images(
        self, images: Sequence[str], show_at: int = 0, model_digest: str = ""
    ) -> list[OrError[tuple[float, ...]]]:
        """L2-normalised embeddings of image references, in order."""
        answer = self._call(
            scorer_pb2_grpc.ScorerServiceStub,
            "EmbedImages",
            scorer_pb2.EmbedImagesRequest(
                images=convert.images(images), show_at=show_at, model_digest=model_digest
            ),
            scorer_pb2.EmbedImagesResponse,
        )
        in_order(len(images), answer.embeddings, self.pool.name)
        return [convert.item_error(m) or tuple(m.values) for m in answer.embeddings]


SERVICE_NAMES = ("activations", "captioner", "summarizer", "synthesizer", "scorer")
JUDGE = "judge"
"""The scorer's program once more, with a model that selection never uses; evaluation asks it."""


@dataclass(frozen=True)
class Services:
    """The five stage services and the artifact store that they share.

    Attributes:
        judge: Judges labels; None where there is none.
    """

    activations: ActivationsClient
    captioner: CaptionerClient
    summarizer: SummarizerClient
    synthesizer: SynthesizerClient
    scorer: ScorerClient
    artifacts: ArtifactStore
    judge: ScorerClient | None = None

    @classmethod
    def connect(
        cls,
        targets: Mapping[str, str],
        artifacts: ArtifactStore,
        *,
        context: RequestContext | None = None,
        deadline_s: float = DEADLINE_S,
        tls: TlsFiles | None = None,
    ) -> Services:
        """Clients of the services at `targets`, by name; `EndpointPool` says what a target is."""
        kwargs = {"context": context or RequestContext(), "deadline_s": deadline_s}
        pools = {name: EndpointPool(name, targets.get(name, ""), tls) for name in SERVICE_NAMES}
        judge = EndpointPool(JUDGE, targets[JUDGE], tls) if targets.get(JUDGE) else None
        return cls(
            activations=ActivationsClient(pools["activations"], **kwargs),  # type: ignore[arg-type]
            captioner=CaptionerClient(pools["captioner"], **kwargs),  # type: ignore[arg-type]
            summarizer=SummarizerClient(pools["summarizer"], **kwargs),  # type: ignore[arg-type]
            synthesizer=SynthesizerClient(pools["synthesizer"], **kwargs),  # type: ignore[arg-type]
            scorer=ScorerClient(pools["scorer"], **kwargs),  # type: ignore[arg-type]
            artifacts=artifacts,
            judge=ScorerClient(judge, **kwargs) if judge else None,  # type: ignore[arg-type]
        )

    def for_context(self, context: RequestContext, calls: Calls | None = None) -> Services:
        """The same connections on behalf of another job, whose calls `calls` can end."""
        clients = {
            name: type(client)(client.pool, context, client.deadline_s, calls)
            for name, client in self._clients().items()
        }
        return Services(artifacts=self.artifacts, **clients)

    def close(self) -> None:
        for client in self._clients().values():
            client.pool.close()

    def _clients(self) -> dict[str, Any]:
        """All clients that there are, by service."""
        found = {name: getattr(self, name) for name in (*SERVICE_NAMES, JUDGE)}
        return {name: client for name, client in found.items() if client is not None}
