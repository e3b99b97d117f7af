"""Each setting is part of the keys of exactly the stages that read it, also one that comes later.

What a stage reads of the stages before it is an input of its key: `test_reuse.py` has whole jobs.
"""

from __future__ import annotations

from dataclasses import fields, replace
from enum import Enum
from typing import Any

import pytest

from dnd import stages
from dnd.profiles import Profile
from dnd.stages import Plan
from dnd_services.coordinator.reuse import JobKeys

READ_BY = {
    "index": set(),  # the index is an input, by its reference
    "exemplars": {"exemplars"},
    "facets": {"exemplars"},
    "caption": {"captions"},
    "propose": {"proposals"},
    "synthesis": {"drawings"},
    "score": {"scores"},
    "dissect": set(),
    "evaluate": set(),
    "calibration": set(),  # the bank's concepts and drawings are inputs
}
"""Keys that the settings of a section are part of."""
EXCEPT = {
    "index.pooling": {"scores", "calibrations", "bank"},
    "score.show_at": {"scores", "calibrations", "bank"},
    "score.num_digits": {"scores", "calibrations"},
    "dissect.similarity": {"dissections"},
    "dissect.num_concepts": {"dissections"},
    "calibration.max_text_cosine": {"calibrations"},
}
DIGESTS = dict.fromkeys(("target", "captioner", "summarizer", "synthesizer", "scorer"), "d" * 64)
PLAN = Plan("tiny", ("conv",), "sha256:probe", Profile("mine"), 7, "sha256:concepts", DIGESTS)
SECTIONS = [one.name for one in fields(Profile) if one.name != "name"]
SETTINGS = [
    f"{section}.{one.name}"
    for section in SECTIONS
    for one in fields(getattr(PLAN.profile, section))
    if f"{section}.{one.name}" != "facets.enabled"  # without facets no other setting counts
]


def keys_of(plan: Plan) -> dict[str, str]:
    """The key of one result of each stage, from the same inputs."""
    keys = JobKeys(plan, "tenant", "job")
    return {
        "exemplars": keys.exemplars("index").of(0),
        "captions": keys.captions().of("images"),
        "proposals": keys.proposals().of("captions"),
        "drawings": stages.image_set_key(plan, "a cat"),
        "scores": keys.scores("conv").of("drawings"),
        "calibrations": keys.calibrations("conv", "bank").of("label"),
        "dissections": keys.dissections().of("index"),
        "bank": keys.bank().of("drawings"),
    }


def another(value: Any) -> Any:
    """A value of the same kind."""
    if isinstance(value, Enum):
        return next(one for one in type(value) if one is not value)
    if isinstance(value, bool):
        return not value
    return f"{value}x" if isinstance(value, str) else value + 1


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_is_part_of_the_keys_of_the_stages_that_read_it(name: str) -> None:
    section, _, setting = name.partition(".")
    part = getattr(PLAN.profile, section)
    # Of values that a profile may have: the keys take any.
    changed = object.__new__(type(part))
    for one in fields(part):
        value = getattr(part, one.name)
        object.__setattr__(changed, one.name, another(value) if one.name == setting else value)
    plan = replace(PLAN, profile=replace(PLAN.profile, **{section: changed}))
    before, after = keys_of(PLAN), keys_of(plan)
    differ = {stage for stage in before if before[stage] != after[stage]}
    assert differ == EXCEPT.get(name, READ_BY[section])


@pytest.mark.parametrize("service", DIGESTS)
def test_other_weights_are_part_of_the_keys_of_the_stages_that_ask_them(service: str) -> None:
    after = keys_of(replace(PLAN, digests={**DIGESTS, service: "e" * 64}))
    before = keys_of(PLAN)
    assert {stage for stage in before if before[stage] != after[stage]} == {
        "target": {"exemplars", "scores", "calibrations", "bank"},
        "captioner": {"captions"},
        "summarizer": {"proposals"},
        "synthesizer": {"drawings"},
        "scorer": {"exemplars", "scores", "calibrations", "dissections", "bank"},
    }[service]
