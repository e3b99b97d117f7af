"""Typed clients of the stage services: channels, endpoints, deadlines, errors. No retries here.

Retries have one owner, the coordinator (for direct calls, the caller). Every call carries a
deadline below the servers' connection-age grace, and waits until then for a server that is not up.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message

from dnd import convert
from dnd.artifacts import ArtifactStore
from dnd.errors import BadSetting, DndError, Internal, from_wire
from dnd.profiles import (
    CaptionSettings,
    ExemplarSettings,
    IndexSettings,
    Pooling,
    ProposeSettings,
    ScoreSettings,
    SynthesisSettings,
)
from dnd.serving.interceptor import REASON_KEY, RETRY_KEY
from dnd.serving.server import CHANNEL_OPTIONS
from dnd.types import (
    Drawing,
    ImageSet,
    LayerIndex,
    LayerInfo,
    Measurement,
    ModelInfo,
    OrError,
    ProbeSet,
    Proposal,
    Ranking,
    RequestContext,
    ScoreUnit,
    UnitActivity,
    UnitCaptions,
    UnitExemplars,
)
from dnd.v1 import (
    activations_pb2,
    activations_pb2_grpc,
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

DEADLINE_S = 90.0
RESOLVE_EVERY_S = 5.0
_CLIENT_OPTIONS = (
    *CHANNEL_OPTIONS,
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),
    # A service that comes back after hours is noticed as soon as one that comes back after seconds.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)

M = TypeVar("M", bound=Message)


class EndpointPool:
    """Channels to all replicas of one service; each call takes the one with fewest calls under way.

    Args:
        name: Name of the service, for messages.
        target: "host:port", several of them with commas, "dns:host:port" (every address behind the
            name), or "file:/path", a JSON file with "address" or "addresses". Read again every 5 s.
    """

    def __init__(self, name: str, target: str) -> None:
        if not target:
            raise BadSetting(f"No address of the {name} service is set: expected 'host:port'.")
        self.name = name
        self.target = target
        self._lock = threading.Lock()
        self._channels: dict[str, grpc.Channel] = {}
        self._outstanding: dict[str, int] = {}
        self._resolved_at = -RESOLVE_EVERY_S

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A channel to the least busy replica, counted as busy until the block ends."""
        with self._lock:
            self._refresh()
            if not self._channels:
                raise from_wire(
                    "Unavailable", "", f"{self.name}: nothing listens at {self.target}."
                )
            address = min(self._channels, key=lambda a: self._outstanding[a])
            self._outstanding[address] += 1
            channel = self._channels[address]
        try:
            yield channel
        finally:
            with self._lock:
                if address in self._outstanding:
                    self._outstanding[address] -= 1

    def close(self) -> None:
        with self._lock:
            for channel in self._channels.values():
                channel.close()
            self._channels.clear()

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._resolved_at < RESOLVE_EVERY_S and self._channels:
            return
        self._resolved_at = now
        addresses = self._resolve()
        for address in addresses:
            if address not in self._channels:
                self._channels[address] = grpc.insecure_channel(address, options=_CLIENT_OPTIONS)
                self._outstanding[address] = 0
        for address in set(self._channels) - set(addresses):
            if not self._outstanding[address]:
                self._channels.pop(address).close()
                del self._outstanding[address]

    def _resolve(self) -> list[str]:
        if self.target.startswith("file:"):
            try:
                data = json.loads(Path(self.target.removeprefix("file:")).read_text())
            except (OSError, json.JSONDecodeError):
                return []
            return list(data.get("addresses") or [data["address"]])
        if self.target.startswith("dns:"):
            host, _, port = self.target.removeprefix("dns:").rpartition(":")
            try:
                infos = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
            except OSError:
                return []
            return sorted(
                {
                    f"[{i[4][0]}]:{port}" if ":" in str(i[4][0]) else f"{i[4][0]}:{port}"
                    for i in infos
                }
            )
        return [part.strip() for part in self.target.split(",")]


@dataclass
class StageClient:
    """What the clients of the five services share.

    Attributes:
        pool: The replicas.
        context: Sent with every request.
        deadline_s: Time for one call, seconds.
    """

    pool: EndpointPool
    context: RequestContext = field(default_factory=RequestContext)
    deadline_s: float = DEADLINE_S

    def _call(self, stub_class: Any, method: str, request: Message, answer: type[M]) -> M:
        request.context.CopyFrom(convert.to_message(self.context, types_pb2.RequestContext))  # type: ignore[attr-defined]
        with self.pool.channel() as channel:
            try:
                response = getattr(stub_class(channel), method)(
                    request, timeout=self.deadline_s, wait_for_ready=True
                )
            except grpc.RpcError as error:
                raise error_of(error, self.pool.name) from None
        assert isinstance(response, answer)
        return response


def error_of(error: grpc.RpcError, service: str) -> DndError:
    """The error of `dnd.errors` behind a failed call."""
    assert isinstance(error, grpc.Call)
    trailers = dict(cast("list[tuple[str, str]]", error.trailing_metadata() or ()))
    code = error.code().name
    details = error.details() or code
    reason = trailers.get(REASON_KEY, "")
    pushback = trailers.get(RETRY_KEY)
    if not reason and code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        details = f"The {service} service did not answer: {details}"
    return from_wire(
        reason, code, details, retry_after_s=int(pushback) / 1000 if pushback else None
    )


def _in_order(num_asked: int, items: Sequence[Any], service: str) -> None:
    if len(items) != num_asked:
        raise Internal(f"The {service} service answered {len(items)} items for {num_asked}.")


class ActivationsClient(StageClient):
    """Client of dnd.v1.ActivationsService."""

    def _ask(self, method: str, request: Message, answer: type[M]) -> M:
        return self._call(activations_pb2_grpc.ActivationsServiceStub, method, request, answer)

    def list_models(self) -> tuple[list[str], list[str]]:
        """Names of the models and of the probe sets on offer."""
        answer = self._ask(
            "ListModels", activations_pb2.ListModelsRequest(), activations_pb2.ListModelsResponse
        )
        return list(answer.models), list(answer.probes)

    def list_layers(self, model: str) -> tuple[list[LayerInfo], str]:
        """The layers of a model in module order, and the digest of its weights."""
        answer = self._ask(
            "ListLayers",
            activations_pb2.ListLayersRequest(model=model),
            activations_pb2.ListLayersResponse,
        )
        return [convert.from_message(m, LayerInfo) for m in answer.layers], answer.model_digest

    def get_probe_set(self, probe: str, judge_fraction: float) -> ProbeSet:
        """Reads and freezes a probe set."""
        answer = self._ask(
            "GetProbeSet",
            activations_pb2.GetProbeSetRequest(probe=probe, judge_fraction=judge_fraction),
            activations_pb2.GetProbeSetResponse,
        )
        return convert.from_message(answer, ProbeSet)

    def index_shard(
        self,
        model: str,
        layers: Sequence[str],
        manifest_ref: str,
        first_image: int,
        num_images: int,
        settings: IndexSettings,
        model_digest: str = "",
    ) -> str:
        """One pass over `num_images` images from `first_image` on; a reference to the shard."""
        request = activations_pb2.IndexShardRequest(
            model=model,
            layers=layers,
            manifest_ref=manifest_ref,
            first_image=first_image,
            num_images=num_images,
            settings=convert.to_message(settings, activations_pb2.IndexSettings),
            model_digest=model_digest,
        )
        return self._ask("IndexShard", request, activations_pb2.IndexShardResponse).shard_ref

    def merge_shards(self, shard_refs: Sequence[str]) -> list[LayerIndex]:
        """One index for each layer, from shards in any order."""
        answer = self._ask(
            "MergeShards",
            activations_pb2.MergeShardsRequest(shard_refs=shard_refs),
            activations_pb2.MergeShardsResponse,
        )
        activity = convert.field_enum(activations_pb2.LayerIndex, "activities")
        return [
            LayerIndex(
                m.layer,
                m.index_ref,
                tuple(convert.enum_member(a, activity, UnitActivity) for a in m.activities),
            )
            for m in answer.layers
        ]

    def select_exemplars(
        self,
        model: str,
        index_ref: str,
        units: Sequence[int],
        settings: ExemplarSettings,
        model_digest: str = "",
    ) -> list[OrError[UnitExemplars]]:
        """The exemplars of each unit, in order."""
        request = activations_pb2.SelectExemplarsRequest(
            model=model,
            index_ref=index_ref,
            units=units,
            settings=convert.to_message(settings, activations_pb2.ExemplarSettings),
            model_digest=model_digest,
        )
        answer = self._ask("SelectExemplars", request, activations_pb2.SelectExemplarsResponse)
        _in_order(len(units), answer.units, self.pool.name)
        return [convert.from_item(m, UnitExemplars) for m in answer.units]

    def measure_images(
        self,
        model: str,
        layers: Sequence[str],
        sets: Sequence[ImageSet],
        pooling: Pooling,
        show_at: int,
        model_digest: str = "",
    ) -> list[OrError[Measurement]]:
        """The activations of all units of `layers` on each set, in order."""
        request = activations_pb2.MeasureImagesRequest(
            model=model,
            layers=layers,
            sets=[convert.to_message(one, activations_pb2.ImageSet) for one in sets],
            pooling=convert.enum_value(
                pooling, convert.field_enum(activations_pb2.MeasureImagesRequest, "pooling")
            ),  # type: ignore[arg-type]
            show_at=show_at,
            model_digest=model_digest,
        )
        answer = self._ask("MeasureImages", request, activations_pb2.MeasureImagesResponse)
        _in_order(len(sets), answer.measurements, self.pool.name)
        return [convert.from_item(m, Measurement) for m in answer.measurements]


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
        answer = self._call(
            captioner_pb2_grpc.CaptionerServiceStub,
            "CaptionImages",
            captioner_pb2.CaptionImagesRequest(
                images=convert.images(images),
                settings=convert.to_message(settings, captioner_pb2.CaptionSettings),
                model_digest=model_digest,
            ),
            captioner_pb2.CaptionImagesResponse,
        )
        _in_order(len(images), answer.captions, self.pool.name)
        return [convert.item_error(m) or m.text for m in answer.captions]


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
        _in_order(len(units), answer.proposals, self.pool.name)
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
        _in_order(len(drawings), answer.images, self.pool.name)
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
        _in_order(len(units), answer.rankings, self.pool.name)
        return [convert.from_item(m, Ranking) for m in answer.rankings]

    def embed_texts(self, texts: Sequence[str]) -> list[OrError[tuple[float, ...]]]:
        """L2-normalised embeddings of texts, in order."""
        answer = self._call(
            scorer_pb2_grpc.ScorerServiceStub,
            "EmbedTexts",
            scorer_pb2.EmbedTextsRequest(texts=texts),
            scorer_pb2.EmbedTextsResponse,
        )
        _in_order(len(texts), answer.embeddings, self.pool.name)
        return [convert.item_error(m) or tuple(m.values) for m in answer.embeddings]

    def embed_images(
        self, images: Sequence[str], show_at: int = 0
    ) -> list[OrError[tuple[float, ...]]]:
        """L2-normalised embeddings of image references, in order."""
        answer = self._call(
            scorer_pb2_grpc.ScorerServiceStub,
            "EmbedImages",
            scorer_pb2.EmbedImagesRequest(images=convert.images(images), show_at=show_at),
            scorer_pb2.EmbedImagesResponse,
        )
        _in_order(len(images), answer.embeddings, self.pool.name)
        return [convert.item_error(m) or tuple(m.values) for m in answer.embeddings]


SERVICE_NAMES = ("activations", "captioner", "summarizer", "synthesizer", "scorer")


@dataclass(frozen=True)
class Services:
    """The five stage services and the artifact store that they share."""

    activations: ActivationsClient
    captioner: CaptionerClient
    summarizer: SummarizerClient
    synthesizer: SynthesizerClient
    scorer: ScorerClient
    artifacts: ArtifactStore

    @classmethod
    def connect(
        cls,
        targets: Mapping[str, str],
        artifacts: ArtifactStore,
        *,
        context: RequestContext | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> Services:
        """Clients of the services at `targets`, by name; `EndpointPool` says what a target is."""
        kwargs = {"context": context or RequestContext(), "deadline_s": deadline_s}
        pools = {name: EndpointPool(name, targets.get(name, "")) for name in SERVICE_NAMES}
        return cls(
            activations=ActivationsClient(pools["activations"], **kwargs),  # type: ignore[arg-type]
            captioner=CaptionerClient(pools["captioner"], **kwargs),  # type: ignore[arg-type]
            summarizer=SummarizerClient(pools["summarizer"], **kwargs),  # type: ignore[arg-type]
            synthesizer=SynthesizerClient(pools["synthesizer"], **kwargs),  # type: ignore[arg-type]
            scorer=ScorerClient(pools["scorer"], **kwargs),  # type: ignore[arg-type]
            artifacts=artifacts,
        )

    def for_context(self, context: RequestContext) -> Services:
        """The same connections on behalf of another job."""
        clients = {
            name: type(client)(client.pool, context, client.deadline_s)
            for name in SERVICE_NAMES
            for client in [getattr(self, name)]
        }
        return Services(artifacts=self.artifacts, **clients)

    def close(self) -> None:
        for name in SERVICE_NAMES:
            getattr(self, name).pool.close()
