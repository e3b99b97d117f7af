"""The method's settings as data: the profiles `paper`, `default` and `starter`.

A profile is visible (`dnd profiles NAME`), frozen into each job, and named in every result. Field
names equal those of the settings messages in protos/dnd/v1. Constants: METHOD, "Profiles".
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, get_type_hints

from dnd.errors import BadSetting, UnknownName, suggest

MIN_CONCEPTS = 10
"""A percentile among fewer concepts is not given."""


class Pooling(Enum):
    MEAN = "mean"
    MAX = "max"
    CLS = "cls"


class MapScaling(Enum):
    TRUNCATE = "truncate"
    MIN_MAX = "min_max"


class BoxGeometry(Enum):
    WHOLE_IMAGE = "whole_image"
    PREPROCESSING = "preprocessing"


class CropFit(Enum):
    SQUASH = "squash"
    PAD = "pad"


class ScoringFunction(Enum):
    MEAN_RANK = "mean_rank"
    SQUARED_MEAN = "squared_mean"
    TOPK_SQUARED_MEAN = "topk_squared_mean"
    IMAGE_PRODUCTS = "image_products"
    TOPK_COMPARE = "topk_compare"
    PROBE_CORRELATION = "probe_correlation"
    MEAN_OF_RANKS = "mean_of_ranks"


class Similarity(Enum):
    """How CLIP-Dissect compares a unit with a concept (docs/clip-dissect.md)."""

    COS = "cos"
    COS_CUBED = "cos_cubed"
    RANK_REORDER = "rank_reorder"
    WPMI = "wpmi"
    SOFT_WPMI = "soft_wpmi"


@dataclass(frozen=True)
class IndexSettings:
    """One streaming pass over the probe set (DnD step 1)."""

    pooling: Pooling = Pooling.MEAN
    top_k: int = 200
    num_sample: int = 500
    judge_fraction: float = 0.2
    keep_matrix: bool = True
    shard_images: int = 1000


@dataclass(frozen=True)
class ExemplarSettings:
    """Images and crops that excite a unit most (DnD step 1)."""

    num_images: int = 10
    max_crops: int = 4
    num_exemplars: int = 10
    max_per_source: int = 2
    size: int = 375
    max_iou: float = 0.5
    max_image_iou: float = 0.8
    map_scaling: MapScaling = MapScaling.MIN_MAX
    box_geometry: BoxGeometry = BoxGeometry.PREPROCESSING
    fit: CropFit = CropFit.PAD
    token_maps: bool = True
    num_per_decile: int = 5


@dataclass(frozen=True)
class FacetSettings:
    """When the images that excite a unit are of several kinds, each labelled on its own."""

    enabled: bool = True
    max_clusters: int = 3
    min_silhouette: float = 0.25
    min_share: float = 0.2
    min_images: int = 5
    min_activation: float = 0.5


@dataclass(frozen=True)
class CaptionSettings:
    """Captions of the exemplars (DnD step 2).

    Attributes:
        num_labels: Labels that the captioner gives to the exemplars of a unit all together, which
            join its candidates; 0 for none. It has to be a vision-language model for that.
    """

    max_new_tokens: int = 32
    min_length: int = 5
    num_beams: int = 1
    min_captions: int = 5
    num_labels: int = 0


@dataclass(frozen=True)
class ProposeSettings:
    """The pool of candidate concepts (DnD step 2).

    Attributes:
        num_captions: Exemplars, the most exciting ones, whose captions join the pool themselves.
        num_phrases: Phrases that captions share, the commonest ones, which join it too.
        contrast: Images that hardly excite the unit, whose captions the language model is shown as
            what a label must not cover; 0 for none.
    """

    prompt_set: str = "general"
    simplify: bool = False
    num_summaries: int = 5
    one_call: bool = False
    temperature: float = 0.8
    num_captions: int = 2
    num_phrases: int = 3
    max_candidates: int = 8
    add_background: bool = True
    merge_near_duplicates: bool = True
    contrast: int = 0


@dataclass(frozen=True)
class SynthesisSettings:
    """Synthetic images of each candidate (DnD step 3)."""

    num_images: int = 10
    min_images: int = 8
    num_steps: int = 25
    guidance: float = 7.5
    size: int = 512
    scheduler: str = "dpmsolver++"
    prompt_template: str = "one realistic image of {concept}"
    seed: int = 0


@dataclass(frozen=True)
class ScoreSettings:
    """What orders the candidates (DnD step 3)."""

    function: ScoringFunction = ScoringFunction.MEAN_OF_RANKS
    beta: int = 5
    num_top_images: int = 10
    absent_product: float = 0.0
    num_labels: int = 3
    max_label_cosine: float = 0.81
    num_digits: int = 4
    show_at: int = 0
    probe_correlation: bool = True


@dataclass(frozen=True)
class DissectSettings:
    """Labels from a concept set (CLIP-Dissect), and which of them a cascade leaves to DnD.

    Attributes:
        similarity: How a unit is compared with a concept.
        num_concepts: Concepts kept for each unit.
        num_candidates: The best of them that join DnD's candidates.
        min_certainty: In a cascade, units whose label is less certain are described by DnD.
        budget: Of these at most so many, the least certain first.
    """

    similarity: Similarity = Similarity.SOFT_WPMI
    num_concepts: int = 5
    num_candidates: int = 3
    min_certainty: float = 2.0
    budget: int = 1000


@dataclass(frozen=True)
class EvaluateSettings:
    """Judging labels (METHOD, "Judging labels without people")."""

    num_drawings: int = 50


@dataclass(frozen=True)
class CalibrationSettings:
    """The percentile of a label among a bank of fixed concepts, which units compare by.

    A label that has nothing to do with its unit has a percentile anywhere between 0 and 1, each as
    likely as another: of such labels 1 - threshold pass, one in five at 0.8. A higher threshold
    lets fewer of them pass and costs more right labels of units that many things excite.

    Attributes:
        num_concepts: How many of the bank's concepts, the first ones.
        num_bank_images: Drawings of each of them.
        num_images: Drawings of each label, other ones than it was selected by.
        max_text_cosine: Concepts of the bank that are closer to the label are left out.
        threshold: A unit whose label has a lower percentile is uncertain.
        bank: A file of src/dnd/banks, without its extension.
    """

    enabled: bool = True
    num_concepts: int = 200
    num_bank_images: int = 10
    num_images: int = 10
    max_text_cosine: float = 0.8
    threshold: float = 0.8
    bank: str = "general"


@dataclass(frozen=True)
class Profile:
    """All settings of the method, one group for each stage."""

    name: str
    index: IndexSettings = field(default_factory=IndexSettings)
    exemplars: ExemplarSettings = field(default_factory=ExemplarSettings)
    facets: FacetSettings = field(default_factory=FacetSettings)
    caption: CaptionSettings = field(default_factory=CaptionSettings)
    propose: ProposeSettings = field(default_factory=ProposeSettings)
    synthesis: SynthesisSettings = field(default_factory=SynthesisSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    dissect: DissectSettings = field(default_factory=DissectSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)


PAPER = Profile(
    name="paper",
    index=IndexSettings(top_k=20, num_sample=0, keep_matrix=False),
    exemplars=ExemplarSettings(
        max_per_source=0,
        map_scaling=MapScaling.TRUNCATE,
        box_geometry=BoxGeometry.WHOLE_IMAGE,
        fit=CropFit.SQUASH,
        token_maps=False,
    ),
    propose=ProposeSettings(
        prompt_set="paper",
        simplify=True,
        temperature=0.3,
        num_captions=0,
        num_phrases=0,
        merge_near_duplicates=False,
    ),
    synthesis=SynthesisSettings(num_steps=50, min_images=10),
    score=ScoreSettings(
        function=ScoringFunction.TOPK_COMPARE,
        absent_product=-1.0,
        show_at=32,
        probe_correlation=False,
    ),
    facets=FacetSettings(enabled=False),
    calibration=CalibrationSettings(enabled=False),
)

DEFAULT = Profile(name="default")

STARTER = Profile(
    name="starter",
    index=IndexSettings(shard_images=250),
    exemplars=ExemplarSettings(max_crops=2, size=256),
    facets=FacetSettings(enabled=False),
    propose=ProposeSettings(num_summaries=3, max_candidates=7),
    synthesis=SynthesisSettings(num_steps=8, guidance=3.0, size=64),
    evaluate=EvaluateSettings(num_drawings=20),
    calibration=CalibrationSettings(
        num_concepts=40, num_bank_images=3, num_images=4, bank="starter"
    ),
)

PROFILES: dict[str, Profile] = {p.name: p for p in (PAPER, DEFAULT, STARTER)}


def get_profile(name: str, overrides: Mapping[str, str] | None = None) -> Profile:
    """The profile `name` with single settings replaced.

    Args:
        name: "paper", "default" or "starter"; empty for "default".
        overrides: Path of a setting, such as "synthesis.num_steps", to its value as JSON.

    Raises:
        UnknownName: There is no such profile.
        BadSetting: There is no such setting, or the value has the wrong type.
    """
    name = name or "default"
    if name not in PROFILES:
        raise UnknownName(suggest(name, list(PROFILES), what="profile"))
    profile = PROFILES[name]
    for path, value in (overrides or {}).items():
        profile = _override(profile, path, value)
    validate(profile)
    return profile


def validate(profile: Profile) -> None:
    """Raises BadSetting for settings that no stage could work with."""
    checks = {
        "index.top_k": profile.index.top_k >= 11,
        "index.judge_fraction": 0 <= profile.index.judge_fraction < 1,
        "index.num_sample": profile.index.num_sample >= 0,
        "index.shard_images": profile.index.shard_images >= 1,
        "exemplars.num_images": 1 <= profile.exemplars.num_images <= profile.index.top_k,
        "exemplars.max_crops": 0 <= profile.exemplars.max_crops <= 16,
        "exemplars.num_exemplars": 1 <= profile.exemplars.num_exemplars <= 32,
        "exemplars.size": 16 <= profile.exemplars.size <= 2048,
        "facets.max_clusters": 2 <= profile.facets.max_clusters <= 8,
        "facets.min_silhouette": 0 < profile.facets.min_silhouette < 1,
        "facets.min_share": 0 <= profile.facets.min_share <= 0.5,
        "facets.min_images": 3 <= profile.facets.min_images <= profile.index.top_k,
        "facets.min_activation": 0 < profile.facets.min_activation <= 1,
        "caption.num_beams": 1 <= profile.caption.num_beams <= 8,
        "caption.max_new_tokens": 1 <= profile.caption.max_new_tokens <= 256,
        "caption.min_captions": profile.caption.min_captions >= 1,
        "caption.num_labels": 0 <= profile.caption.num_labels <= 16,
        "propose.num_summaries": 1 <= profile.propose.num_summaries <= 16,
        "propose.max_candidates": 1 <= profile.propose.max_candidates <= 32,
        "propose.num_captions": 0 <= profile.propose.num_captions <= 8,
        "propose.num_phrases": 0 <= profile.propose.num_phrases <= 8,
        "propose.temperature": 0 <= profile.propose.temperature <= 2,
        "propose.contrast": 0 <= profile.propose.contrast <= 16,
        "synthesis.num_images": 1 <= profile.synthesis.num_images <= 100,
        "synthesis.min_images": 1 <= profile.synthesis.min_images <= profile.synthesis.num_images,
        "synthesis.num_steps": 1 <= profile.synthesis.num_steps <= 200,
        "synthesis.size": profile.synthesis.size % 8 == 0 and profile.synthesis.size >= 8,
        "synthesis.prompt_template": "{concept}" in profile.synthesis.prompt_template,
        "evaluate.num_drawings": profile.evaluate.num_drawings == 0
        or 2 <= profile.evaluate.num_drawings <= 1000,
        "score.beta": profile.score.beta >= 1,
        "score.num_top_images": profile.score.num_top_images >= 1,
        "score.num_labels": profile.score.num_labels >= 1,
        "score.num_digits": 1 <= profile.score.num_digits <= 9,
        "dissect.num_concepts": 1 <= profile.dissect.num_concepts <= 100,
        "dissect.num_candidates": 0
        <= profile.dissect.num_candidates
        <= profile.dissect.num_concepts,
        "dissect.budget": profile.dissect.budget >= 0,
        "score.function": profile.score.function is not ScoringFunction.PROBE_CORRELATION
        or profile.score.probe_correlation,
        "calibration.num_concepts": MIN_CONCEPTS <= profile.calibration.num_concepts <= 1000,
        "calibration.num_bank_images": 1 <= profile.calibration.num_bank_images <= 100,
        "calibration.num_images": 1 <= profile.calibration.num_images <= 100,
        "calibration.max_text_cosine": -1 <= profile.calibration.max_text_cosine <= 1,
        "calibration.threshold": 0 <= profile.calibration.threshold <= 1,
        "score.probe_correlation": not profile.score.probe_correlation or profile.index.keep_matrix,
    }
    for path, good in checks.items():
        if not good:
            group, name = path.split(".")
            value = getattr(getattr(profile, group), name)
            raise BadSetting(
                f"Setting {path} = {value!r} of profile {profile.name!r} is out of its range "
                "(src/dnd/profiles.py, validate)."
            )
    sampled = profile.index.num_sample and profile.exemplars.num_per_decile
    if profile.propose.contrast and not sampled:
        raise BadSetting(
            f"Setting propose.contrast = {profile.propose.contrast} of profile {profile.name!r} "
            "takes images of the activation deciles: expected index.num_sample and "
            "exemplars.num_per_decile above 0."
        )


def to_json(profile: Profile) -> str:
    """The profile as JSON with sorted keys: what a job is frozen to."""

    def plain(value: Any) -> Any:
        return value.value if isinstance(value, Enum) else value

    return json.dumps(
        dataclasses.asdict(profile, dict_factory=lambda kv: {k: plain(v) for k, v in kv}),
        sort_keys=True,
    )


@functools.lru_cache(maxsize=64)
def from_json(text: str) -> Profile:
    """The inverse of `to_json`; a profile from before there were percentiles has none."""
    data = {"calibration": {"enabled": False}, **json.loads(text)}
    name = data.pop("name")
    groups = get_type_hints(Profile)
    built = {}
    for group, values in data.items():
        hints = get_type_hints(groups[group])
        built[group] = groups[group](**{k: _typed(hints[k], v, k) for k, v in values.items()})
    return Profile(name=name, **built)


def _override(profile: Profile, path: str, value_json: str) -> Profile:
    known = [
        f"{group.name}.{setting.name}"
        for group in dataclasses.fields(Profile)
        if group.name != "name"
        for setting in dataclasses.fields(getattr(profile, group.name))
    ]
    if path not in known:
        raise BadSetting(suggest(path, known, what="profile setting"))
    group_name, setting_name = path.split(".")
    group = getattr(profile, group_name)
    hint = get_type_hints(type(group))[setting_name]
    try:
        value = json.loads(value_json)
    except json.JSONDecodeError:
        value = value_json
    groups: dict[str, Any] = {
        group_name: replace(group, **{setting_name: _typed(hint, value, path)})
    }
    return replace(profile, **groups)


def _typed(hint: Any, value: Any, path: str) -> Any:
    """`value` as a setting of type `hint`."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            choices = ", ".join(member.value for member in hint)
            raise BadSetting(f"Setting {path} = {value!r}: expected one of {choices}.") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise BadSetting(
            f"Setting {path} = {value!r}: expected a value of type {hint.__name__}, "
            f"not {type(value).__name__}."
        )
    return value
