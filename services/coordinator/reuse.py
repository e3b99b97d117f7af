"""What a stage's result depends on, as its key: of any job, it is computed once.

A key holds what the stage reads, and nothing else, so that changing a setting makes new results of
exactly the stages that depend on it. Results that lack a part because of an error have no key, as
errors are never kept; results of a service without a digest (a language model behind an API) are
of use to their own job only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dnd import keys, stages
from dnd.stages import Captions, Description, Plan
from dnd.types import ImageSet, OrError, Proposal, UnitCaptions, UnitExemplars

_DIGITS = 32


class Keys:
    """Keys of the results of one stage of one job.

    Args:
        owner: Who may share results: a tenant, or "" for all.
        job_id: Whose results they are where a service has no digest.
        services: Names of the services, and "target", that the stage asks.
        settings: What of the profile and of the job the stage depends on, whatever it is for.
    """

    def __init__(
        self,
        stage: str,
        plan: Plan,
        owner: str,
        job_id: str,
        services: Sequence[str],
        *settings: object,
    ) -> None:
        digests = [plan.digest(name) for name in services]
        of_job = "" if all(digests) else job_id
        self._stage = stage
        self._base = keys.digest_of(owner, of_job, digests, *settings)

    def of(self, *parts: object) -> str:
        """The key of the result for one unit, layer or bank."""
        return keys.digest_of(self._stage, keys.STAGE_VERSIONS[self._stage], self._base, *parts)[
            :_DIGITS
        ]


def exemplar_keys(plan: Plan, owner: str, job_id: str, index_ref: str) -> Keys:
    """Exemplars of units of an index; of several kinds where the profile looks for them."""
    facets = plan.profile.facets
    services = ["target", "scorer"] if facets.enabled else ["target"]
    return Keys(
        "exemplars",
        plan,
        owner,
        job_id,
        services,
        plan.model,
        index_ref,
        plan.profile.exemplars,
        facets if facets.enabled else None,
    )


def caption_keys(plan: Plan, owner: str, job_id: str) -> Keys:
    """Captions of exemplars: `of` takes `captioned`."""
    return Keys("caption", plan, owner, job_id, ["captioner"], plan.profile.caption)


def captioned(plan: Plan, unit: UnitExemplars) -> list[object]:
    """What is captioned of a unit."""
    images = [[one.image for one in part.exemplars] for part in unit.parts]
    return [images, stages.choose_contrast(unit, plan.profile.propose.contrast)]


def proposal_keys(plan: Plan, owner: str, job_id: str) -> Keys:
    """Candidates: `of` takes what the language model is asked for a unit."""
    return Keys("summarize", plan, owner, job_id, ["summarizer"], plan.profile.propose)


def asked_of(parts: Sequence[UnitCaptions]) -> list[object]:
    """What the language model is asked for a unit."""
    return [
        [one.captions, one.seed, [(c.text, c.origin) for c in one.candidates], one.contrast]
        for one in parts
    ]


def score_keys(plan: Plan, owner: str, job_id: str, layer: str) -> Keys:
    """Rankings: `of` takes `scored`."""
    with_probe = plan.profile.score.probe_correlation
    return Keys(
        "score",
        plan,
        owner,
        job_id,
        ["target", "scorer"],
        plan.model,
        layer,
        plan.profile.index.pooling,
        plan.profile.score,
        plan.manifest_ref if with_probe else "",
    )


def scored(
    plan: Plan,
    exemplars: UnitExemplars,
    proposal: Proposal,
    image_sets: Mapping[str, OrError[ImageSet]],
) -> list[object] | None:
    """What is scored of a unit; None while drawings are missing."""
    drawn = [(prompt, image_sets[prompt]) for prompt in stages.prompts_for(plan, proposal)]
    if not all(isinstance(one, ImageSet) for _, one in drawn):
        return None
    return [
        exemplars.unit,
        [[e.image for e in part.exemplars] for part in exemplars.parts],
        [part.activations_ref for part in exemplars.parts],
        [[(c.text, c.origin) for c in part.candidates] for part in proposal.parts],
        [(prompt, one.images) for prompt, one in drawn if isinstance(one, ImageSet)],
    ]


def calibration_keys(plan: Plan, owner: str, job_id: str, layer: str, bank_ref: str) -> Keys:
    """Percentiles: `of` takes the unit, its label and the label's fresh drawings."""
    return Keys(
        "calibrate",
        plan,
        owner,
        job_id,
        ["target", "scorer"],
        plan.model,
        layer,
        plan.layers,
        plan.profile.index.pooling,
        plan.profile.score.show_at,
        plan.profile.score.num_digits,
        plan.profile.calibration.max_text_cosine,
        bank_ref,
    )


def dissection_keys(plan: Plan, owner: str, job_id: str) -> Keys:
    """Labels of a layer from the concept set: `of` takes the reference of its index."""
    return Keys(
        "dissect",
        plan,
        owner,
        job_id,
        ["scorer"],
        plan.manifest_ref,
        plan.concepts_ref,
        plan.profile.dissect.similarity,
        plan.profile.dissect.num_concepts,
    )


def bank_keys(plan: Plan, owner: str, job_id: str) -> Keys:
    """The bank, measured for the job's layers: `of` takes `bank_drawn`."""
    return Keys(
        "measure",
        plan,
        owner,
        job_id,
        ["target", "scorer"],
        plan.model,
        plan.layers,
        plan.profile.index.pooling,
        plan.profile.score.show_at,
    )


def bank_drawn(drawn: Mapping[str, OrError[ImageSet]]) -> list[object] | None:
    """What is measured of the bank, by concept; None while drawings are missing."""
    if not all(isinstance(one, ImageSet) for one in drawn.values()):
        return None
    return [(text, one.images) for text, one in drawn.items() if isinstance(one, ImageSet)]


def has_all_captions(plan: Plan, unit: UnitExemplars, captions: Captions) -> bool:
    """Whether no caption and no label is missing because of an error."""
    num_contrast = len(stages.choose_contrast(unit, plan.profile.propose.contrast))
    return len(captions.contrast) == num_contrast and all(
        None not in part.texts and bool(part.labels) == bool(plan.profile.caption.num_labels)
        for part in captions.parts
    )


def has_all_scores(description: Description) -> bool:
    """Whether no candidate was dropped because of an error."""
    return not any(one.dropped for part in description.parts for one in part.candidates)
