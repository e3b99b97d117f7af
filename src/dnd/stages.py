"""The method, top to bottom. Read this file first.

Describe-and-Dissect (Bai et al., TMLR 2025) names a unit of a vision network in three steps:

1. Probe: find the images, and regions of images, that excite the unit  -> `select_exemplars`
2. Propose: caption them, let a language model propose concepts          -> `caption_exemplars`,
                                                                            `propose_concepts`
3. Select: draw every concept, keep the one whose drawings excite the
   unit most                                                             -> `synthesize_images`,
                                                                            `score_concepts`

Each function takes many units at once, since that is how the models behind it are fed well, and
answers one result or one error for each, in order. They hold no state: `describe_units` calls them
one after the other in one process, the coordinator's tasks call the same functions from its queues.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np

from dnd import keys
from dnd.clients import Services
from dnd.errors import DndError, Kind, TooFewResults, kind_of
from dnd.profiles import Profile
from dnd.types import (
    Candidate,
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
    UnitCaptions,
    UnitExemplars,
)

# What one call carries, so that it ends well within its deadline on the slowest profile.
CAPTIONS_PER_CALL = 128
DRAWINGS_PER_CALL = 40
PROPOSALS_PER_CALL = 8
SETS_PER_CALL = 32
UNITS_PER_CALL = 64

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
        digests: SHA-256 of the weights, by "target", "captioner", "summarizer", "synthesizer",
            "scorer"; a missing one accepts any replica.
    """

    model: str
    layers: tuple[str, ...]
    manifest_ref: str
    profile: Profile
    seed: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)

    def digest(self, service: str) -> str:
        return self.digests.get(service, "")


@dataclass(frozen=True)
class Captions:
    """The captions of a unit's exemplars, in their order; None where there is none."""

    texts: tuple[str | None, ...]

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


# --- Step 1: probe --------------------------------------------------------------------------------


def select_exemplars(
    services: Services, plan: Plan, index_ref: str, units: Sequence[int]
) -> list[OrError[UnitExemplars]]:
    """The images and crops that excite each unit most (DnD section 3.1)."""
    return services.activations.select_exemplars(
        plan.model, index_ref, units, plan.profile.exemplars, plan.digest("target")
    )


# --- Step 2: propose ------------------------------------------------------------------------------


def caption_exemplars(
    services: Services, plan: Plan, units: Sequence[UnitExemplars]
) -> list[OrError[Captions]]:
    """A caption for each exemplar (DnD section 3.2); the same picture is captioned once.

    A unit goes on with some captions missing, but not with fewer than the profile's minimum. What
    may succeed later is no missing caption: it is the unit's error, so that trying again gives
    the result of an undisturbed run.
    """
    settings = plan.profile.caption
    images = list(dict.fromkeys(e.image for unit in units for e in unit.exemplars))
    captions: dict[str, OrError[str]] = {}
    for chunk in _chunks(images, CAPTIONS_PER_CALL):
        answers = services.captioner.caption_images(chunk, settings, plan.digest("captioner"))
        captions.update(zip(chunk, answers, strict=True))

    results: list[OrError[Captions]] = []
    for unit in units:
        answers = [captions[e.image] for e in unit.exemplars]
        good = [a for a in answers if isinstance(a, str)]
        needed = min(settings.min_captions, len(unit.exemplars))
        if passing := _passing_error(answers):
            results.append(passing)
        elif len(good) < needed or not good:
            results.append(_too_few("captions", len(good), needed, answers))
        else:
            results.append(Captions(tuple(a if isinstance(a, str) else None for a in answers)))
    return results


def propose_concepts(
    services: Services, plan: Plan, layer: str, units: Sequence[tuple[int, Captions]]
) -> list[OrError[Proposal]]:
    """The candidate concepts of each unit (DnD section 3.2): summaries, and common phrases."""
    asked = [
        UnitCaptions(captions.usable, keys.unit_seed(plan.seed, plan.model, layer, unit))
        for unit, captions in units
    ]
    return [
        answer
        for chunk in _chunks(asked, PROPOSALS_PER_CALL)
        for answer in services.summarizer.propose_concepts(
            chunk, plan.profile.propose, plan.digest("summarizer")
        )
    ]


# --- Step 3: select -------------------------------------------------------------------------------


def prompt_for(plan: Plan, concept: str) -> str:
    """What the diffusion model is asked to draw (DnD section 3.3)."""
    return plan.profile.synthesis.prompt_template.format(concept=concept)


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
    for chunk in _chunks(drawings, DRAWINGS_PER_CALL):
        images += services.synthesizer.synthesize_images(
            chunk, settings, plan.digest("synthesizer")
        )
    results: list[OrError[ImageSet]] = []
    for number, prompt in enumerate(prompts):
        start = number * settings.num_images
        answers = images[start : start + settings.num_images]
        good = tuple(a for a in answers if isinstance(a, str))
        if passing := _passing_error(answers):
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
    prompts = dict.fromkeys(
        prompt_for(plan, candidate.text)
        for _, proposal in units
        for candidate in proposal.candidates
    )
    drawn = [s for p in prompts if isinstance(s := image_sets[p], ImageSet)]
    measured: dict[str, OrError[Measurement]] = {}
    for some in _chunks(drawn, SETS_PER_CALL):
        answers = measure_images(services, plan, some)
        measured.update(zip((s.key for s in some), answers, strict=True))

    prepared: list[OrError[tuple[ScoredCandidate, ...]]] = [
        _gather_candidates(services, plan, layer, exemplars.unit, proposal, image_sets, measured)
        for exemplars, proposal in units
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
        for (exemplars, _), candidates in zip(units, prepared, strict=True)
        if not isinstance(candidates, DndError)
    ]
    rankings = iter(
        [
            ranking
            for some in _chunks(asked, UNITS_PER_CALL)
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
    return results


def _gather_candidates(
    services: Services,
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
        if passing := _passing_error([measurement]):
            return passing
        if isinstance(measurement, DndError):
            gathered.append(ScoredCandidate(candidate, prompt, dropped=measurement.message))
            continue
        array = services.artifacts.get_array(measurement.activations_refs[place])
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
    for some in _chunks(sets, SETS_PER_CALL):
        answers = measure_images(services, plan, some)
        if passing := _passing_error(answers):
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
        own, rest = rows[key][:, unit], np.sort(np.concatenate(others))
        below = np.searchsorted(rest, own, "left")
        equal = np.searchsorted(rest, own, "right") - below
        aucs.append(float(np.mean((below + equal / 2) / len(rest))))
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
    prompts = list(
        dict.fromkeys(prompt_for(plan, c.text) for p in proposals.values() for c in p.candidates)
    )
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


def _passing_error(answers: Iterable[object]) -> DndError | None:
    """The first error that is not the item's own, if there is one (`dnd.errors.kind_of`)."""
    errors = (answer for answer in answers if isinstance(answer, DndError))
    return next((error for error in errors if kind_of(error) is not Kind.ITEM), None)


def _too_few(what: str, num: int, needed: int, answers: Iterable[OrError[str]]) -> TooFewResults:
    reasons = sorted({a.message for a in answers if isinstance(a, DndError)})
    return TooFewResults(f"{num} {what}, at least {needed} are needed: {'; '.join(reasons)[:500]}")


def _chunks(items: Sequence[T], size: int) -> Iterable[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
