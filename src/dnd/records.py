"""The unit record: everything that is known about one unit of one job, as JSON (docs/results.md).

One line of labels.jsonl is one record. It is built from what the stages gave, as far as the unit
came, so that a unit that failed shows its evidence too. The same job gives the same record whatever
the order of work, but for the job's id and the timings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from dnd.calibration import Calibration
from dnd.profiles import Profile
from dnd.stages import Captions, Description, ScoredCandidate
from dnd.types import ConceptScore, Proposal, TokenUse, UnitDissection, UnitExemplars

SCHEMA = 1
NOT_SCORED = "not scored"
CLIP_DISSECT = "clip-dissect"
_SCORES = tuple(f.name for f in dataclasses.fields(ConceptScore) if f.name != "candidate")


@dataclass(frozen=True)
class JobFacts:
    """What all records of a job have in common."""

    job: str
    model: str
    probe: str
    profile: Profile
    seed: int
    digests: Mapping[str, str]


@dataclass(frozen=True)
class UnitFacts:
    """What is known about one unit; None for the stages that it did not come to.

    Attributes:
        state: A value of `dnd.jobs.UnitState`.
        method: What described the unit, "dnd" or "clip-dissect"; empty if nothing did.
        calibration: Its label's place among the concepts of the bank.
        uncalibrated: Why a unit with a label has none, where the profile asks for it; else empty.
        auc: Of the label's drawings against the job's other drawings; 0.5 is chance.
        timings: Stage to seconds per item.
        error: Why it failed; else empty.
    """

    layer: str
    unit: int
    state: str
    exemplars: UnitExemplars | None = None
    captions: Captions | None = None
    proposal: Proposal | None = None
    description: Description | None = None
    dissection: UnitDissection | None = None
    method: str = ""
    calibration: Calibration | None = None
    uncalibrated: str = ""
    auc: float | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


def build_record(job: JobFacts, unit: UnitFacts) -> dict[str, Any]:
    """The record of a unit: plain values that JSON can carry."""
    return {
        "schema": SCHEMA,
        "job": job.job,
        "model": job.model,
        "layer": unit.layer,
        "unit": unit.unit,
        "state": unit.state,
        "method": unit.method,
        "labels": _labels(job.profile, unit),
        "concepts": _concepts(unit.dissection),
        "certainty": unit.dissection.certainty if unit.dissection else None,
        "percentile": unit.calibration.percentile if unit.calibration else None,
        "auc": unit.auc,
        "exemplars": _exemplars(unit.exemplars, unit.captions) or _top_images(unit.dissection),
        "deciles": _deciles(unit.exemplars, unit.captions),
        "candidates": _candidates(job.profile, unit),
        "facets": _facets(job.profile, unit),
        "calibration": _calibration(unit),
        "profile": job.profile.name,
        "digests": dict(sorted(job.digests.items())),
        "probe": job.probe,
        "seed": job.seed,
        "tokens": _tokens(unit.proposal) if unit.proposal else None,
        "timings": dict(sorted(unit.timings.items())),
        "error": unit.error,
    }


def _facets(profile: Profile, unit: UnitFacts) -> list[dict[str, Any]]:
    """Each kind of images that the unit responds to with its labels; none if it is one kind."""
    if unit.exemplars is None or not unit.exemplars.facets:
        return []
    facets = []
    for place, exemplars in enumerate(unit.exemplars.parts):
        own = dataclasses.replace(
            unit,
            exemplars=exemplars,
            captions=unit.captions.parts[place] if unit.captions else None,
            proposal=unit.proposal.parts[place] if unit.proposal else None,
            description=unit.description.parts[place] if unit.description else None,
        )
        facets.append(
            {
                "share": exemplars.share,
                "labels": _labels(profile, own),
                "exemplars": _exemplars(own.exemplars, own.captions),
                "candidates": _candidates(profile, own),
            }
        )
    return facets


def _tokens(proposal: Proposal) -> dict[str, int]:
    """Use of the language model for all kinds of images together."""
    return {
        item.name: sum(getattr(part.tokens, item.name) for part in proposal.parts)
        for item in dataclasses.fields(TokenUse)
    }


def _labels(profile: Profile, unit: UnitFacts) -> list[dict[str, Any]]:
    description = unit.description
    if description is None:
        if unit.method != CLIP_DISSECT or unit.dissection is None:
            return []
        return [
            {"text": match.text, "score": match.value, "candidate": None}
            for match in unit.dissection.concepts[: profile.score.num_labels]
        ]
    places = _places_of_scored(description)
    labels = []
    for place in description.ranking.labels:
        score = description.ranking.scores[place]
        labels.append(
            {
                "text": description.scored[score.candidate].candidate.text,
                "score": score.score,
                "candidate": places[score.candidate],
            }
        )
    return labels


def _concepts(found: UnitDissection | None) -> list[dict[str, Any]]:
    return [_plain(match) for match in found.concepts] if found else []


def _top_images(found: UnitDissection | None) -> list[dict[str, Any]]:
    """Exemplars of a unit that nobody has captioned: whole probe images."""
    if found is None:
        return []
    return [
        {
            "image": one.image,
            "source": one.image,
            "box": None,
            "activation": one.activation,
            "caption": None,
        }
        for one in found.images
    ]


def _exemplars(found: UnitExemplars | None, captions: Captions | None) -> list[dict[str, Any]]:
    if found is None:
        return []
    texts = captions.texts if captions else (None,) * len(found.exemplars)
    return [
        {
            "image": exemplar.image,
            "source": exemplar.source,
            "box": list(dataclasses.astuple(exemplar.box)) if exemplar.box else None,
            "activation": exemplar.activation,
            "caption": text,
        }
        for exemplar, text in zip(found.exemplars, texts, strict=True)
    ]


def _deciles(found: UnitExemplars | None, captions: Captions | None) -> list[dict[str, Any]]:
    """Images across the deciles; those that were shown as contrast with their captions."""
    contrast = {one.image: one.text for one in captions.contrast} if captions else {}
    deciles = found.deciles if found else ()
    return [{**_plain(one), "caption": contrast.get(one.image)} for one in deciles]


def _candidates(profile: Profile, unit: UnitFacts) -> list[dict[str, Any]]:
    """In pool order; with all component scores where the candidate was scored."""
    if unit.description is None:
        pool = unit.proposal.candidates if unit.proposal else ()
        template = profile.synthesis.prompt_template
        return [
            _candidate(
                ScoredCandidate(c, template.format(concept=c.text), dropped=NOT_SCORED), None
            )
            for c in pool
        ]
    places = _places_of_scored(unit.description)
    scores = {places[score.candidate]: score for score in unit.description.ranking.scores}
    return [
        _candidate(candidate, scores.get(place))
        for place, candidate in enumerate(unit.description.candidates)
    ]


def _calibration(unit: UnitFacts) -> dict[str, Any] | None:
    """What the percentile follows from, or why there is none; None where nobody asked for one."""
    found = unit.calibration
    if found is None and not unit.uncalibrated:
        return None
    names = [f.name for f in dataclasses.fields(Calibration) if f.name != "percentile"]
    return {
        **{name: _plain(getattr(found, name)) if found else None for name in names},
        "error": unit.uncalibrated,
    }


def _candidate(one: ScoredCandidate, score: ConceptScore | None) -> dict[str, Any]:
    return {
        "text": one.candidate.text,
        "origin": one.candidate.origin.value,
        "prompt": one.prompt,
        "images": list(one.images),
        "activations": list(one.activations),
        "dropped": one.dropped,
        **{name: _plain(getattr(score, name)) if score else None for name in _SCORES},
    }


def _places_of_scored(description: Description) -> list[int]:
    """Places in the pool of the candidates that were scored, in order."""
    return [place for place, one in enumerate(description.candidates) if not one.dropped]


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return value
