"""What a job is frozen to, and the `Plan` that the stage functions take from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dnd import calibration, keys, profiles, stages
from dnd.errors import VersionSkew
from dnd.jobs import Method
from dnd.profiles import Profile
from dnd.stages import Plan
from dnd.types import Priority, ProbeSet, RequestContext
from dnd_services.coordinator import states
from dnd_services.coordinator.budgets import Price
from dnd_services.coordinator.models import JobRow
from dnd_services.coordinator.store.sets import Need


def freeze(
    *,
    model: str,
    layers: Sequence[str],
    probe: str,
    probe_set: ProbeSet,
    profile: Profile,
    seed: int,
    digests: Mapping[str, str],
    bank: Sequence[str] = (),
    method: Method = Method.DND,
    concept_set: str = "",
    concepts_ref: str = "",
    price: Price | None = None,
) -> dict[str, Any]:
    """The JSON that a job keeps: nothing that is looked up later can change its results."""
    return {
        "model": model,
        "layers": list(layers),
        "probe": probe,
        "manifest_ref": probe_set.manifest_ref,
        "num_images": probe_set.num_images,
        "profile": profiles.to_json(profile),
        "seed": seed,
        "digests": {**digests, "bank": keys.digest_of(bank)} if bank else dict(digests),
        "bank": list(bank),
        "method": method.value,
        "concept_set": concept_set,
        "concepts_ref": concepts_ref,
        **({"price": [price.input, price.output]} if price else {}),
    }


def method_of(job: JobRow) -> Method:
    """How the units of a job get their labels."""
    return Method(job.frozen.get("method", Method.DND.value))


def plan_of(job: JobRow) -> Plan:
    """The plan of a job, the same for all of its units.

    Raises:
        VersionSkew: A later version has made the job, and frozen it to what this one cannot read.
    """
    try:
        return make_plan(job.frozen)
    except (KeyError, TypeError, ValueError) as error:
        raise VersionSkew(
            f"Job {job.id} was made by a newer version: {type(error).__name__}: {error}. Upgrade "
            "this process, too."
        ) from None


def make_plan(frozen: Mapping[str, Any]) -> Plan:
    """The plan in what a job was frozen to."""
    return Plan(
        model=frozen["model"],
        layers=tuple(frozen["layers"]),
        manifest_ref=frozen["manifest_ref"],
        profile=profiles.from_json(frozen["profile"]),
        seed=frozen["seed"],
        concepts_ref=frozen.get("concepts_ref", ""),
        digests=frozen["digests"],
        bank=tuple(frozen.get("bank", ())),
    )


def shards_of(job: JobRow) -> list[tuple[int, int]]:
    """The shards of a job's probe set as (first image, number of images)."""
    num_images = job.frozen["num_images"]
    probe_set = ProbeSet(job.frozen["manifest_ref"], num_images, num_images, 0)
    return stages.plan_shards(probe_set, profiles.from_json(job.frozen["profile"]))


def context_of(job: JobRow) -> RequestContext:
    """On whose behalf the stage services are asked."""
    priority = Priority.BATCH if job.is_batch else Priority.INTERACTIVE
    return RequestContext(tenant=job.tenant, job=job.id, priority=priority)


def bank_needs(tenant: str, plan: Plan, *, shared: bool) -> tuple[Need, ...]:
    """The image sets of a job's bank."""
    drawing = calibration.bank_plan(plan)
    prompts = [stages.prompt_for(plan, concept) for concept in plan.bank]
    return tuple(
        Need(set_key(tenant, drawing, prompt, shared=shared), prompt, states.BANK)
        for prompt in prompts
    )


def set_key(tenant: str, plan: Plan, prompt: str, *, shared: bool) -> str:
    """Key of a prompt's image set in the record; by default tenants share nothing."""
    return f"{'' if shared else tenant}/{stages.image_set_key(plan, prompt)}"


def artifact_key(record_key: str) -> str:
    """The key of an image set as the stages know it."""
    return record_key.rpartition("/")[2]
