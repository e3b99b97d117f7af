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
        base: What they depend on, whatever the stage is asked for.
    """

    def __init__(self, stage: str, base: str) -> None:
        self._stage = stage
        self._base = base

    def of(self, *parts: object) -> str:
        """The key of the result for one unit, layer or bank."""
        return keys.digest_of(self._stage, keys.STAGE_VERSIONS[self._stage], self._base, *parts)[
            :_DIGITS
        ]


class JobKeys:
    """Keys of the results of one job, by stage.

    Args:
        owner: Who may share results: a tenant, or "" for all.
        job_id: Whose results they are where a service has no digest.
    """

    def __init__(self, plan: Plan, owner: str, job_id: str) -> None:
        self._plan = plan
        self._owner = owner
        self._job_id = job_id

    def exemplars(self, index_ref: str) -> Keys:
        """Exemplars of units of an index; of several kinds where the profile looks for them."""
        profile = self._plan.profile
        facets = profile.facets if profile.facets.enabled else None
        services = ["target", "scorer"] if facets else ["target"]
        return self._keys(
            "exemplars", services, self._plan.model, index_ref, profile.exemplars, facets
        )

    def captions(self) -> Keys:
        """Captions of exemplars: `of` takes `captioned`."""
        return self._keys("caption", ["captioner"], self._plan.profile.caption)

    def proposals(self) -> Keys:
        """Candidates: `of` takes what the language model is asked for a unit."""
        return self._keys("summarize", ["summarizer"], self._plan.profile.propose)

    def scores(self, layer: str) -> Keys:
        """Rankings: `of` takes `scored`."""
        plan = self._plan
        return self._keys(
            "score",
            ["target", "scorer"],
            plan.model,
            layer,
            plan.profile.index.pooling,
            plan.profile.score,
            plan.manifest_ref if plan.profile.score.probe_correlation else "",
        )

    def calibrations(self, layer: str, bank_ref: str) -> Keys:
        """Percentiles: `of` takes the unit, its label and the label's fresh drawings."""
        plan = self._plan
        return self._keys(
            "calibrate",
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

    def dissections(self) -> Keys:
        """Labels of a layer from the concept set: `of` takes the reference of its index."""
        plan, settings = self._plan, self._plan.profile.dissect
        found_by = (settings.similarity, settings.num_concepts)
        return self._keys("dissect", ["scorer"], plan.manifest_ref, plan.concepts_ref, *found_by)

    def bank(self) -> Keys:
        """The bank, measured for the job's layers: `of` takes `bank_drawn`."""
        plan, profile = self._plan, self._plan.profile
        how = (profile.index.pooling, profile.score.show_at)
        return self._keys("measure", ["target", "scorer"], plan.model, plan.layers, *how)

    def _keys(self, stage: str, services: Sequence[str], *settings: object) -> Keys:
        """Keys of a stage.

        Args:
            services: Names of the services, and "target", that the stage asks.
            settings: What of the profile and of the job it depends on, whatever it is for.
        """
        digests = [self._plan.digest(name) for name in services]
        of_job = "" if all(digests) else self._job_id
        return Keys(stage, keys.digest_of(self._owner, of_job, digests, *settings))


def captioned(plan: Plan, unit: UnitExemplars) -> list[object]:
    """What is captioned of a unit."""
    images = [[one.image for one in part.exemplars] for part in unit.parts]
    return [images, stages.choose_contrast(unit, plan.profile.propose.contrast)]


def asked_of(parts: Sequence[UnitCaptions]) -> list[object]:
    """What the language model is asked for a unit."""
    return [
        [one.captions, one.seed, [(c.text, c.origin) for c in one.candidates], one.contrast]
        for one in parts
    ]


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
