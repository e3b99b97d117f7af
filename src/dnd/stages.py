"""The method, top to bottom. Read this file first.

Describe-and-Dissect (Bai et al., TMLR 2025) names a unit of a vision network in three steps:

1. Probe: find the images, and regions of images, that excite the unit  -> `select_exemplars`
2. Propose: caption them, let a language model propose concepts          -> `caption_exemplars`,
                                                                            `propose_concepts`
3. Select: draw every concept, keep the one whose drawings excite the
   unit most                                                             -> `synthesize_images`,
                                                                            `score_concepts`

Each function takes many units at once, since that is how the models behind it are fed well, and
answers one result or one error for each, in order. Where a unit responds to images of several kinds
(`find_facets`), each kind goes through the steps on its own. The functions hold no state:
`describe_units` calls them one after the other in one process, the coordinator's tasks call the
same functions from its queues.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from dnd import keys
from dnd.auc import auc_of
from dnd.chunks import chunks
from dnd.clients import Services
from dnd.errors import DndError, TooFewResults, passing_error
from dnd.facets import find_facets, join_facets
from dnd.montages import label_exemplars
from dnd.profiles import Profile
from dnd.types import (
    Candidate,
    CandidateOrigin,
    Drawing,
    ImageSet,
    LayerIndex,
    Measurement,
    OrError,
    ProbeSet,
    Proposal,
    Ranking,
    ScoreCandidate,
    ScoreUnit,
    UnitActivity,
    UnitCaptions,
    UnitDissection,
    UnitExemplars,
)

# What one call carries, so that it ends well within its deadline on the slowest profile.
CAPTIONS_PER_CALL = 128
DRAWINGS_PER_CALL = 40
PROPOSALS_PER_CALL = 8
SETS_PER_CALL = 32
UNITS_PER_CALL = 64

NUM_WEAK_DECILES = 5
"""Contrast is taken from these tenths of a unit's sample: from below its median."""

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What a job is frozen to, the same for all of its units.

    Attributes:
        model: Name of the target network.
        layers: Module paths, in the job's order.
        manifest_ref: The frozen probe set.
        profile: All settings of the method.
        seed: Seed of shuffles and of the language model's sampling.
        concepts_ref: The concept set of CLIP-Dissect; empty without one.
        digests: SHA-256 of the weights, by "target", "captioner", "summarizer", "synthesizer",
            "scorer"; a missing one accepts any replica.
        bank: Concepts that labels are compared with (`dnd.calibration`); empty for none.
    """

    model: str
    layers: tuple[str, ...]
    manifest_ref: str
    profile: Profile
    seed: int = 0
    concepts_ref: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    bank: tuple[str, ...] = ()

    def digest(self, service: str) -> str:
        return self.digests.get(service, "")


@dataclass(frozen=True)
class ContrastCaption:
    """The caption of an image that hardly excites a unit."""

    image: str
    text: str


@dataclass(frozen=True)
class Captions:
    """The captions of a unit's exemplars, in their order; None where there is none.

    Attributes:
        contrast: Of images that hardly excite the unit, weakest first; with the first kind only.
        labels: What a vision-language model named in all exemplars together.
    """

    texts: tuple[str | None, ...]
    facets: tuple[Captions, ...] = ()
    contrast: tuple[ContrastCaption, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Captions, ...]:
        """Those for each kind of images, as `UnitExemplars.parts`."""
        return (self, *self.facets)

    @property
    def usable(self) -> tuple[str, ...]:
        return tuple(text for text in self.texts if text is not None)


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate as it was scored, or the reason why it was not.

    Attributes:
        candidate: The concept and where it came from.
        prompt: What was drawn.
        images: References of the drawings that were scored.
        activations: The unit's activation on each of them.
        dropped: Why the candidate was left out of the ranking; empty if it was scored.
    """

    candidate: Candidate
    prompt: str
    images: tuple[str, ...] = ()
    activations: tuple[float, ...] = ()
    dropped: str = ""


@dataclass(frozen=True)
class Description:
    """What a unit is labelled from: the scored candidates and their ranking.

    `ranking.scores[i].candidate` is an index into `scored`.
    """

    candidates: tuple[ScoredCandidate, ...]
    ranking: Ranking
    facets: tuple[Description, ...] = ()

    @property
    def parts(self) -> tuple[Description, ...]:
        """Those for each kind of images, as `UnitExemplars.parts`."""
        return (self, *self.facets)

    @property
    def scored(self) -> tuple[ScoredCandidate, ...]:
        return tuple(one for one in self.candidates if not one.dropped)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels, best first, at most as many as the profile keeps."""
        best = (self.ranking.scores[place].candidate for place in self.ranking.labels)
        return tuple(self.scored[index].candidate.text for index in best)


# --- Before the units: the index ------------------------------------------------------------------


def plan_shards(probe: ProbeSet, profile: Profile) -> list[tuple[int, int]]:
    """Shards of a probe set as (first image, number of images)."""
    size = profile.index.shard_images
    return [
        (first, min(size, probe.num_images - first)) for first in range(0, probe.num_images, size)
    ]


def index_shard(services: Services, plan: Plan, first_image: int, num_images: int) -> str:
    """One streaming pass over one shard, all layers at once; a reference to the shard."""
    return services.activations.index_shard(
        plan.model,
        plan.layers,
        plan.manifest_ref,
        first_image,
        num_images,
        plan.profile.index,
        plan.digest("target"),
    )


def merge_shards(services: Services, shard_refs: Sequence[str]) -> list[LayerIndex]:
    """The index of each layer; the order of the shards does not matter."""
    return services.activations.merge_shards(shard_refs)


def dissect_layer(services: Services, plan: Plan, index_ref: str) -> str:
    """CLIP-Dissect (Oikarinen & Weng, ICLR 2023): the best concepts of a set for a whole layer.

    Returns:
        Reference of the dissection (`dnd.dissection`); empty if no unit of the layer is live.
    """
    index = services.activations.get_index(index_ref)
    if all(one in (UnitActivity.DEAD, UnitActivity.TIED) for one in index.activities):
        return ""
    return services.scorer.dissect_layer(
        index,
        plan.concepts_ref,
        plan.profile.dissect.similarity,
        plan.profile.dissect.num_concepts,
        plan.digest("scorer"),
    )


# --- Step 1: probe --------------------------------------------------------------------------------


def select_exemplars(
    services: Services, plan: Plan, index_ref: str, units: Sequence[int]
) -> list[OrError[UnitExemplars]]:
    """The images and crops that excite each unit most (DnD section 3.1), of each kind apart."""
    found = services.activations.select_exemplars(
        plan.model, index_ref, units, plan.profile.exemplars, plan.digest("target")
    )
    if not plan.profile.facets.enabled:
        return found
    live = [
        one.unit
        for one in found
        if not isinstance(one, DndError) and one.activity is UnitActivity.LIVE
    ]
    found_facets = find_facets(
        services, plan.profile.facets, index_ref, live, plan.digest("scorer")
    )
    facets = dict(zip(live, found_facets, strict=True))
    asked = [(unit, facet) for unit in live for facet in facets[unit]]
    if not asked:
        return found
    answers = iter(
        services.activations.select_exemplars(
            plan.model,
            index_ref,
            [unit for unit, _ in asked],
            plan.profile.exemplars,
            plan.digest("target"),
            [facet.sources for _, facet in asked],
        )
    )
    return [
        one
        if isinstance(one, DndError)
        else join_facets(one, [(facet, next(answers)) for facet in facets.get(one.unit, ())])
        for one in found
    ]


# --- Step 2: propose ------------------------------------------------------------------------------


def caption_exemplars(
    services: Services, plan: Plan, units: Sequence[UnitExemplars]
) -> list[OrError[Captions]]:
    """A caption for each exemplar (DnD section 3.2); the same picture is captioned once.

    A unit goes on with some captions missing, but not with fewer than the profile's minimum; its
    contrast and its common labels may be missing. What may succeed later is no missing caption: it
    is the unit's error, so that trying again gives the result of an undisturbed run.
    """
    settings = plan.profile.caption
    parts = [part for unit in units for part in unit.parts]
    contrasts = [choose_contrast(unit, plan.profile.propose.contrast) for unit in units]
    images = list(
        dict.fromkeys(
            [e.image for part in parts for e in part.exemplars]
            + [image for contrast in contrasts for image in contrast]
        )
    )
    captions: dict[str, OrError[str]] = {}
    for chunk in chunks(images, CAPTIONS_PER_CALL):
        answers = services.captioner.caption_images(chunk, settings, plan.digest("captioner"))
        captions.update(zip(chunk, answers, strict=True))
    labels = label_exemplars(services, settings, parts, plan.digest("captioner"))

    results: list[OrError[Captions]] = []
    for part, common in zip(parts, labels, strict=True):
        answers = [captions[e.image] for e in part.exemplars]
        good = [a for a in answers if isinstance(a, str)]
        needed = min(settings.min_captions, len(part.exemplars))
        if passing := passing_error([*answers, common]):
            results.append(passing)
        elif len(good) < needed or not good:
            results.append(_too_few("captions", len(good), needed, answers))
        else:
            texts = tuple(a if isinstance(a, str) else None for a in answers)
            results.append(Captions(texts, labels=() if isinstance(common, DndError) else common))
    whole = _regroup(results, [len(unit.parts) for unit in units])
    return [
        one if isinstance(one, DndError) else _join_contrast(one, contrast, captions)
        for one, contrast in zip(whole, contrasts, strict=True)
    ]


def choose_contrast(unit: UnitExemplars, num: int) -> list[str]:
    """At most `num` images that hardly excite a unit, those of the lowest tenth first.

    They are of the sample that its deciles show, below its median, and none is an exemplar's.
    """
    sources = {exemplar.source for part in unit.parts for exemplar in part.exemplars}
    weak = dict.fromkeys(
        one.image
        for one in unit.deciles
        if one.decile < NUM_WEAK_DECILES and one.image not in sources
    )
    return list(weak)[:num]


def _join_contrast(
    whole: Captions, contrast: Sequence[str], captions: Mapping[str, OrError[str]]
) -> OrError[Captions]:
    if passing := passing_error(captions[image] for image in contrast):
        return passing
    good = [(image, text) for image in contrast if isinstance(text := captions[image], str)]
    return replace(whole, contrast=tuple(ContrastCaption(*pair) for pair in good))


def propose_concepts(
    services: Services,
    plan: Plan,
    layer: str,
    units: Sequence[tuple[int, Captions]],
    dissected: Mapping[int, UnitDissection] | None = None,
) -> list[OrError[Proposal]]:
    """The candidate concepts of each unit (DnD section 3.2): summaries, and what stands beside.

    Args:
        dissected: What a concept set says of units: its best concepts join their candidates.
    """
    asked = [
        part
        for unit, captions in units
        for part in concepts_asked(plan, layer, unit, captions, (dissected or {}).get(unit))
    ]
    answers = [
        answer
        for chunk in chunks(asked, PROPOSALS_PER_CALL)
        for answer in services.summarizer.propose_concepts(
            chunk, plan.profile.propose, plan.digest("summarizer")
        )
    ]
    return _regroup(answers, [len(captions.parts) for _, captions in units])


def concepts_asked(
    plan: Plan, layer: str, unit: int, captions: Captions, dissected: UnitDissection | None
) -> list[UnitCaptions]:
    """What the language model is asked for each kind of a unit's images."""
    seed = keys.unit_seed(plan.seed, plan.model, layer, unit)
    best = dissected.concepts[: plan.profile.dissect.num_candidates] if dissected else ()
    return [
        UnitCaptions(
            part.usable,
            seed,
            (
                *(Candidate(text, CandidateOrigin.VISION_LANGUAGE) for text in part.labels),
                *(Candidate(match.text, CandidateOrigin.CONCEPT_SET) for match in best),
            ),
            tuple(one.text for one in captions.contrast),
        )
        for part in captions.parts
    ]


# --- Step 3: select -------------------------------------------------------------------------------


def prompt_for(plan: Plan, concept: str) -> str:
    """What the diffusion model is asked to draw (DnD section 3.3)."""
    return plan.profile.synthesis.prompt_template.format(concept=concept)


def prompts_for(plan: Plan, proposal: Proposal) -> list[str]:
    """All that is drawn for a unit, each once."""
    return list(
        dict.fromkeys(
            prompt_for(plan, candidate.text)
            for part in proposal.parts
            for candidate in part.candidates
        )
    )


def image_set_key(plan: Plan, prompt: str) -> str:
    """Key of a prompt's drawings, shared by all units and jobs that ask for the same."""
    return keys.image_set_key(prompt, plan.profile.synthesis, plan.digest("synthesizer"))


def synthesize_images(
    services: Services, plan: Plan, prompts: Sequence[str]
) -> list[OrError[ImageSet]]:
    """The drawings of each prompt; seeded by prompt and index, never by the unit."""
    settings = plan.profile.synthesis
    drawings = [
        Drawing(prompt, keys.drawing_seed(settings.seed, prompt, index))
        for prompt in prompts
        for index in range(settings.num_images)
    ]
    images: list[OrError[str]] = []
    for chunk in chunks(drawings, DRAWINGS_PER_CALL):
        images += services.synthesizer.synthesize_images(
            chunk, settings, plan.digest("synthesizer")
        )
    results: list[OrError[ImageSet]] = []
    for number, prompt in enumerate(prompts):
        start = number * settings.num_images
        answers = images[start : start + settings.num_images]
        good = tuple(a for a in answers if isinstance(a, str))
        if passing := passing_error(answers):
            results.append(passing)
        elif len(good) < settings.min_images:
            results.append(_too_few("drawings", len(good), settings.min_images, answers))
        else:
            results.append(ImageSet(image_set_key(plan, prompt), good))
    return results


def measure_images(
    services: Services, plan: Plan, sets: Sequence[ImageSet]
) -> list[OrError[Measurement]]:
    """The activations of all units of the job's layers on each set: one pass serves them all."""
    return services.activations.measure_images(
        plan.model,
        plan.layers,
        sets,
        plan.profile.index.pooling,
        plan.profile.score.show_at,
        plan.digest("target"),
    )


def score_concepts(
    services: Services,
    plan: Plan,
    layer: str,
    units: Sequence[tuple[UnitExemplars, Proposal]],
    image_sets: Mapping[str, OrError[ImageSet]],
) -> list[OrError[Description]]:
    """Ranks each unit's candidates by their drawings (DnD section 3.3).

    Args:
        units: Exemplars and candidates of units of `layer`.
        image_sets: The drawings, or why there are none, by prompt; measured here if they were not.
    """
    parts = [
        pair
        for exemplars, proposal in units
        for pair in zip(exemplars.parts, proposal.parts, strict=True)
    ]
    prompts = dict.fromkeys(p for _, proposal in units for p in prompts_for(plan, proposal))
    drawn = [s for p in prompts if isinstance(s := image_sets[p], ImageSet)]
    measured: dict[str, OrError[Measurement]] = {}
    for some in chunks(drawn, SETS_PER_CALL):
        answers = measure_images(services, plan, some)
        measured.update(zip((s.key for s in some), answers, strict=True))

    # Units that are alike ask for the same drawings.
    read = functools.lru_cache(maxsize=256)(services.artifacts.get_array)
    prepared: list[OrError[tuple[ScoredCandidate, ...]]] = [
        _gather_candidates(read, plan, layer, exemplars.unit, proposal, image_sets, measured)
        for exemplars, proposal in parts
    ]
    asked = [
        ScoreUnit(
            exemplars=tuple(e.image for e in exemplars.exemplars),
            candidates=tuple(
                ScoreCandidate(c.candidate.text, c.images, c.activations)
                for c in candidates
                if not c.dropped
            ),
            probe_activations_ref=exemplars.activations_ref,
        )
        for (exemplars, _), candidates in zip(parts, prepared, strict=True)
        if not isinstance(candidates, DndError)
    ]
    rankings = iter(
        [
            ranking
            for some in chunks(asked, UNITS_PER_CALL)
            for ranking in services.scorer.score_concepts(
                some,
                plan.profile.score,
                plan.manifest_ref if plan.profile.score.probe_correlation else "",
                plan.digest("scorer"),
            )
        ]
    )
    results: list[OrError[Description]] = []
    for candidates in prepared:
        if isinstance(candidates, DndError):
            results.append(candidates)
        else:
            ranking = next(rankings)
            results.append(
                ranking if isinstance(ranking, DndError) else Description(candidates, ranking)
            )
    return _regroup(results, [len(exemplars.parts) for exemplars, _ in units])


def _gather_candidates(
    read: Callable[[str], np.ndarray],
    plan: Plan,
    layer: str,
    unit: int,
    proposal: Proposal,
    image_sets: Mapping[str, OrError[ImageSet]],
    measured: Mapping[str, OrError[Measurement]],
) -> OrError[tuple[ScoredCandidate, ...]]:
    """One unit's candidates with their drawings and activations, equally many for each."""
    place = plan.layers.index(layer)
    gathered: list[ScoredCandidate] = []
    for candidate in proposal.candidates:
        prompt = prompt_for(plan, candidate.text)
        drawings = image_sets[prompt]
        if isinstance(drawings, DndError):
            gathered.append(ScoredCandidate(candidate, prompt, dropped=drawings.message))
            continue
        measurement = measured[drawings.key]
        if passing := passing_error([measurement]):
            return passing
        if isinstance(measurement, DndError):
            gathered.append(ScoredCandidate(candidate, prompt, dropped=measurement.message))
            continue
        array = read(measurement.activations_refs[place])
        gathered.append(
            ScoredCandidate(
                candidate, prompt, drawings.images, tuple(float(a) for a in array[:, unit])
            )
        )
    scored = [c for c in gathered if not c.dropped]
    if not scored:
        reasons = "; ".join(c.dropped for c in gathered)
        return TooFewResults(f"No candidate has enough drawings: {reasons or 'there are none'}.")
    common = min(len(c.images) for c in scored)
    return tuple(
        ScoredCandidate(c.candidate, c.prompt, c.images[:common], c.activations[:common], c.dropped)
        for c in gathered
    )


# --- After the units: the labels of a layer side by side ------------------------------------------


def compare_labels(
    services: Services,
    plan: Plan,
    layer: str,
    labels: Sequence[tuple[int, str]],
    sets: Sequence[ImageSet],
) -> list[float | None]:
    """AUC of the drawings of each unit's label against the drawings of all other `sets`.

    The share of pairs in which the label's drawing excites the unit more than another drawing of
    the job; 0.5 is chance, ties count half. None where there is nothing to compare.

    Args:
        labels: For each unit its index and the key of its label's image set.
        sets: Image sets of the job.
    """
    place = plan.layers.index(layer)
    rows: dict[str, np.ndarray] = {}
    for some in chunks(sets, SETS_PER_CALL):
        answers = measure_images(services, plan, some)
        if passing := passing_error(answers):
            raise passing
        for one, answer in zip(some, answers, strict=True):
            if not isinstance(answer, DndError):
                rows[one.key] = np.asarray(
                    services.artifacts.get_array(answer.activations_refs[place])
                )
    aucs: list[float | None] = []
    for unit, key in labels:
        others = [array[:, unit] for other, array in rows.items() if other != key]
        if key not in rows or not others:
            aucs.append(None)
            continue
        aucs.append(auc_of(rows[key][:, unit], np.sort(np.concatenate(others))))
    return aucs


# --- All of it, one step after the other ----------------------------------------------------------


def describe_units(
    services: Services, plan: Plan, index: LayerIndex, units: Sequence[int]
) -> list[OrError[Description]]:
    """Labels units of one layer in this process, without a queue; the coordinator's short form."""
    results: dict[int, OrError[Description]] = {}

    def keep(answers: Sequence[OrError[T]], numbers: Sequence[int]) -> dict[int, T]:
        """The good answers by unit; the others are results already."""
        good: dict[int, T] = {}
        for unit, answer in zip(numbers, answers, strict=True):
            if isinstance(answer, DndError):
                results[unit] = answer
            else:
                good[unit] = answer
        return good

    exemplars = keep(select_exemplars(services, plan, index.index_ref, units), units)
    for unit, found in list(exemplars.items()):
        if not found.exemplars:
            results[unit] = TooFewResults(f"The unit is {found.activity.value}.")
            del exemplars[unit]
    captions = keep(caption_exemplars(services, plan, list(exemplars.values())), list(exemplars))
    proposals = keep(
        propose_concepts(services, plan, index.layer, list(captions.items())), list(captions)
    )
    prompts = list(dict.fromkeys(p for own in proposals.values() for p in prompts_for(plan, own)))
    image_sets = dict(zip(prompts, synthesize_images(services, plan, prompts), strict=True))
    scored = score_concepts(
        services,
        plan,
        index.layer,
        [(exemplars[unit], proposal) for unit, proposal in proposals.items()],
        image_sets,
    )
    results.update(zip(proposals, scored, strict=True))
    return [results[unit] for unit in units]


def _regroup(answers: Sequence[OrError[T]], nums_parts: Sequence[int]) -> list[OrError[T]]:
    """The answers for the parts of each unit as one: the first, with the others as its facets.

    The error of a part is its unit's, since a unit without one of its kinds would look complete.
    """
    results: list[OrError[T]] = []
    remaining = iter(answers)
    for num_parts in nums_parts:
        parts: list[Any] = [next(remaining) for _ in range(num_parts)]
        error = next((part for part in parts if isinstance(part, DndError)), None)
        if error is not None or num_parts == 1:
            results.append(error or parts[0])
        else:
            results.append(replace(parts[0], facets=tuple(parts[1:])))
    return results


def _too_few(what: str, num: int, needed: int, answers: Iterable[OrError[str]]) -> TooFewResults:
    reasons = sorted({a.message for a in answers if isinstance(a, DndError)})
    return TooFewResults(f"{num} {what}, at least {needed} are needed: {'; '.join(reasons)[:500]}")
