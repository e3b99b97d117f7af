"""The values that stages hand to each other. Frozen, and free of protobuf: `dnd.convert` does that.

Field names equal those of the messages in protos/dnd/v1, where units and ranges are written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, TypeVar

from dnd.errors import DndError


class Priority(Enum):
    INTERACTIVE = "interactive"
    BATCH = "batch"


class LayerKind(Enum):
    """Shape family of a layer's output."""

    CONV = "conv"  # (images, units, height, width)
    LINEAR = "linear"  # (images, units)
    TOKENS = "tokens"  # (images, tokens, units)


class UnitActivity(Enum):
    """How a unit responds to the probe set (METHOD.md, "Dead, tied, sparse")."""

    LIVE = "live"
    DEAD = "dead"
    TIED = "tied"
    SPARSE = "sparse"


class CandidateOrigin(Enum):
    """Where a candidate concept came from."""

    SUMMARY = "summary"
    BACKGROUND = "background"
    CAPTION = "caption"
    CAPTION_PHRASE = "caption_phrase"
    CONCEPT_SET = "concept_set"
    VISION_LANGUAGE = "vision_language"


@dataclass(frozen=True)
class RequestContext:
    tenant: str = "default"
    job: str = ""
    priority: Priority = Priority.BATCH
    trace_id: str = ""


@dataclass(frozen=True)
class Box:
    """Half-open rectangle in pixels of the source image."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True)
class ModelInfo:
    """The weights behind a server."""

    name: str
    digest: str = ""
    architecture: str = ""
    dtype: str = ""
    device: str = ""
    fixed_batch: int = 0


@dataclass(frozen=True)
class LayerInfo:
    path: str
    module: str
    kind: LayerKind
    num_units: int
    output_shape: tuple[int, ...]
    unit_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProbeSet:
    """A frozen probe set: what was read, and how it is split."""

    manifest_ref: str
    num_images: int
    num_select: int
    num_skipped: int
    skipped_reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerIndex:
    layer: str
    index_ref: str
    activities: tuple[UnitActivity, ...]
    manifest_ref: str = ""
    select_ref: str = ""
    judge_ref: str = ""


@dataclass(frozen=True)
class TopImages:
    """The source images that excite a unit most, highest activation first."""

    unit: int
    sources: tuple[str, ...]
    activations: tuple[float, ...]
    median: float


@dataclass(frozen=True)
class Exemplar:
    """An image or crop that excites the unit. Images are references into the artifact store."""

    image: str
    source: str
    box: Box | None
    activation: float


@dataclass(frozen=True)
class DecileImage:
    image: str
    decile: int
    activation: float


@dataclass(frozen=True)
class UnitExemplars:
    """What a unit is labelled from.

    A unit that responds to images of several kinds has `facets`: the weightiest kind is the value
    itself, the others lie in `facets`. What later stages make of it is built alike.

    Attributes:
        share: Of this kind in what excites the unit, 0..1.
        facets: The other kinds, weightiest first; each without facets of its own.
    """

    unit: int
    exemplars: tuple[Exemplar, ...]
    deciles: tuple[DecileImage, ...]
    activity: UnitActivity
    activations_ref: str = ""
    share: float = 1.0
    facets: tuple[UnitExemplars, ...] = ()

    @property
    def parts(self) -> tuple[UnitExemplars, ...]:
        """All kinds, weightiest first."""
        return (self, *self.facets)


@dataclass(frozen=True)
class Candidate:
    text: str
    origin: CandidateOrigin


@dataclass(frozen=True)
class UnitCaptions:
    """What the summarizer sees of a unit.

    Attributes:
        captions: Of its exemplars, highest activation first.
        seed: Of shuffles and sampling.
        candidates: Of other origin.
        contrast: Captions of images that hardly excite it; empty to ask without them.
    """

    captions: tuple[str, ...]
    seed: int
    candidates: tuple[Candidate, ...] = ()
    contrast: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenUse:
    num_calls: int = 0
    num_input_tokens: int = 0
    num_output_tokens: int = 0


@dataclass(frozen=True)
class Proposal:
    candidates: tuple[Candidate, ...]
    tokens: TokenUse
    facets: tuple[Proposal, ...] = ()

    @property
    def parts(self) -> tuple[Proposal, ...]:
        """Those for each kind of images, as `UnitExemplars.parts`."""
        return (self, *self.facets)


@dataclass(frozen=True)
class Drawing:
    prompt: str
    seed: int


@dataclass(frozen=True)
class ImageSet:
    key: str
    images: tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """Activations of one image set: one float32 (images, units) array artifact for each layer."""

    key: str
    activations_refs: tuple[str, ...]


@dataclass(frozen=True)
class ScoreCandidate:
    text: str
    images: tuple[str, ...]
    activations: tuple[float, ...]


@dataclass(frozen=True)
class ScoreUnit:
    exemplars: tuple[str, ...]
    candidates: tuple[ScoreCandidate, ...]
    probe_activations_ref: str = ""


@dataclass(frozen=True)
class ConceptScore:
    """All component scores of one candidate (DnD step 3)."""

    candidate: int
    score: float
    ranks: tuple[int, ...]
    mean_rank: float
    squared_mean: float
    topk_squared_mean: float
    image_products: float
    topk_compare: float
    probe_correlation: float | None = None
    auc: float | None = None


@dataclass(frozen=True)
class Ranking:
    scores: tuple[ConceptScore, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class ConceptMatch:
    """A concept of a set and how well it fits a unit; comparable only within one layer."""

    text: str
    value: float


@dataclass(frozen=True)
class TopImage:
    """A probe image that excites a unit, by reference."""

    image: str
    activation: float


@dataclass(frozen=True)
class UnitDissection:
    """What CLIP-Dissect says of a unit.

    Attributes:
        concepts: The best of the set, best first.
        certainty: How far the label stands out where it was not chosen, in standard deviations over
            the concepts; comparable between units (docs/clip-dissect.md).
        images: The most activating images, highest first.
    """

    concepts: tuple[ConceptMatch, ...]
    certainty: float
    images: tuple[TopImage, ...]


T = TypeVar("T")
OrError: TypeAlias = T | DndError
"""One item's result, or why it has none; the batch around it is whole."""
