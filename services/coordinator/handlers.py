"""One handler for each kind of work: reads inputs, calls the stage function, keeps its outputs.

The method is in `dnd.stages`; nothing of it is repeated here. A handler answers one outcome for
each row of its group, in order; where the call as a whole fails, it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from dnd import calibration, stages
from dnd.calibration import Bank, Calibration, LabelDrawn
from dnd.clients import Services
from dnd.errors import BadAnswer, DndError, Internal, TooFewResults
from dnd.jobs import UnitState
from dnd.stages import Captions, Description, Plan
from dnd.types import (
    ImageSet,
    OrError,
    Proposal,
    TokenUse,
    UnitActivity,
    UnitDissection,
    UnitExemplars,
)
from dnd_services.coordinator import outputs, states
from dnd_services.coordinator.claiming import Group
from dnd_services.coordinator.dissections import open_dissection
from dnd_services.coordinator.frozen import artifact_key, set_key, shards_of
from dnd_services.coordinator.models import ImageSetRow, UnitRow
from dnd_services.coordinator.store.rows import count_live, encode_activities
from dnd_services.coordinator.store.sets import Need
from dnd_services.coordinator.store.steps import MergedLayer, UnitStep

MIN_SPARSE_SOURCES = 3
"""A sparse unit is labelled from that many different images at least (METHOD, "Sparse")."""

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True)
class ShardIndexed:
    """A shard of the index."""

    ref: str


@dataclass(frozen=True)
class ShardsMerged:
    """The index of all layers of a job."""

    layers: tuple[MergedLayer, ...]


@dataclass(frozen=True)
class LayerDissected:
    """The labels of a layer from the concept set; "" for a layer without a live unit."""

    ref: str


@dataclass(frozen=True)
class SetDrawn:
    """The drawings of a prompt."""

    images: tuple[str, ...]


@dataclass(frozen=True)
class BankMeasured:
    """The bank of a job, measured for its layers."""

    ref: str


Result: TypeAlias = (
    UnitStep | ShardIndexed | ShardsMerged | LayerDissected | SetDrawn | BankMeasured
)


@dataclass(frozen=True)
class Bench:
    """What a handler works with.

    Attributes:
        services: The stage services, on behalf of the group's job.
        share_drawings: Whether tenants share drawings.
    """

    services: Services
    share_drawings: bool = False


def handle(bench: Bench, plan: Plan, group: Group) -> Sequence[OrError[Result]]:
    """Does the work of a group; one result or error for each of its rows.

    Raises:
        DndError: The call failed as a whole.
    """
    return _HANDLERS[group.stage, group.scope](bench, plan, group)


def _index_shards(bench: Bench, plan: Plan, group: Group) -> Sequence[OrError[Result]]:
    shards = shards_of(group.job)
    results: list[OrError[Result]] = []
    for work in group.works:
        try:
            results.append(
                ShardIndexed(stages.index_shard(bench.services, plan, *shards[work.ordinal]))
            )
        except DndError as error:
            results.append(error)
    return results


def _merge_shards(bench: Bench, plan: Plan, group: Group) -> Sequence[OrError[Result]]:
    merged = {one.layer: one for one in stages.merge_shards(bench.services, group.shard_refs)}
    layers = []
    for row in group.layers:
        index = merged.get(row.layer)
        if index is None:
            raise Internal(f"The merged index has no layer {row.layer!r}.")
        codes = encode_activities(index.activities)
        if len(codes) < row.ranges[-1][1]:
            raise Internal(
                f"The index of layer {row.layer!r} has {len(codes)} units: expected at least "
                f"{row.ranges[-1][1]}."
            )
        layers.append(
            MergedLayer(
                place=row.place,
                index_ref=index.index_ref,
                activities_ref=bench.services.artifacts.put_array(codes),
                num_live=count_live(codes, row.ranges),
            )
        )
    return [ShardsMerged(tuple(layers))]


def _dissect_layers(bench: Bench, plan: Plan, group: Group) -> Sequence[OrError[Result]]:
    return [
        LayerDissected(
            stages.dissect_layer(bench.services, plan, group.layers[work.ordinal].index_ref)
        )
        for work in group.works
    ]


def _select_exemplars(bench: Bench, plan: Plan, group: Group) -> Sequence[OrError[Result]]:
    def step(found: UnitExemplars) -> UnitStep:
        if found.activity is UnitActivity.LIVE and not found.exemplars:
            raise BadAnswer(f"Unit {found.unit} is live and has no exemplars.")
        return UnitStep(_save(bench, found), settled=_settled_without_label(found))

    answers = stages.select_exemplars(
        bench.services, plan, group.layer.index_ref, [unit.unit for unit in group.unit_rows]
    )
    return _each(answers, step)


def _settled_without_label(found: UnitExemplars) -> UnitState | None:
    """The state of a unit that has nothing to be labelled from."""
    if found.activity in (UnitActivity.DEAD, UnitActivity.TIED):
        return UnitState(found.activity.value)
    sources = {exemplar.source for exemplar in found.exemplars}
    if found.activity is UnitActivity.SPARSE and len(sources) < MIN_SPARSE_SOURCES:
        return UnitState.SPARSE
    return None


def _caption_exemplars(bench: Bench, plan: Plan, group: Group) -> Sequence[OrError[Result]]:
    inputs = _each(group.unit_rows, lambda unit: _load(bench, unit, "exemplars", UnitExemplars))
    answers = _through(inputs, lambda good: stages.caption_exemplars(bench.services, plan, good))
    return _each(answers, lambda captions: UnitStep(_save(bench, captions)))


def _propose_concepts(bench: Bench, plan: Plan, group: Group) -> Sequence[OrError[Result]]:
    def step(proposal: Proposal) -> UnitStep:
        if not all(part.candidates for part in proposal.parts):
            raise TooFewResults("The captions gave no candidate concept.")
        needs = tuple(
            Need(set_key(group.job.tenant, plan, prompt, shared=bench.share_drawings), prompt)
            for prompt in stages.prompts_for(plan, proposal)
        )
        tokens = TokenUse(
            num_input_tokens=sum(part.tokens.num_input_tokens for part in proposal.parts),
            num_output_tokens=sum(part.tokens.num_output_tokens for part in proposal.parts),
        )
        return UnitStep(_save(bench, proposal), needs=needs, tokens=tokens)

    inputs = _each(
        group.unit_rows, lambda unit: (unit.unit, _load(bench, unit, "caption", Captions))
    )
    answers = _through(
        inputs,
        lambda good: stages.propose_concepts(
            bench.services, plan, group.layer.layer, good, _dissected(bench, plan, group)
        ),
    )
    return _each(answers, step)


def _dissected(bench: Bench, plan: Plan, group: Group) -> dict[int, UnitDissection]:
    """What the job's concept set says of the units, where it has one."""
    found = {}
    for unit in group.unit_rows:
        if ref := unit.outputs.get("dissect"):
            dissection = open_dissection(
                bench.services.artifacts, ref, plan.concepts_ref, plan.manifest_ref
            )
            found[unit.unit] = dissection.unit(unit.unit)
    return {unit: one for unit, one in found.items() if one is not None}


def _synthesize_images(bench: Bench, plan: Plan, group: Group) -> Sequence[OrError[Result]]:
    prompts = [row.prompt for row in group.rows if isinstance(row, ImageSetRow)]
    answers = stages.synthesize_images(bench.services, _DRAWN_BY[group.scope](plan), prompts)
    return _each(answers, lambda image_set: SetDrawn(image_set.images))


_DRAWN_BY: dict[str, Callable[[Plan], Plan]] = {
    states.PROMPTS: lambda plan: plan,
    states.BANK: calibration.bank_plan,
    states.FRESH: calibration.fresh_plan,
}


def _drawings(row: ImageSetRow) -> OrError[ImageSet]:
    if row.state == states.DONE:
        return ImageSet(artifact_key(row.key), tuple(row.images))
    return TooFewResults(row.error or "It was not drawn.")


def _score_concepts(bench: Bench, plan: Plan, group: Group) -> Sequence[OrError[Result]]:
    drawn = {row.prompt: _drawings(row) for row in group.sets.values()}

    def step(scored: tuple[UnitRow, Description]) -> UnitStep:
        unit, description = scored
        if not all(part.labels for part in description.parts):
            raise Internal("The scorer ranked the candidates and kept no label.")
        exemplars = _load(bench, unit, "exemplars", UnitExemplars)
        sparse = exemplars.activity is UnitActivity.SPARSE
        state = UnitState.SPARSE if sparse else UnitState.LABELED
        needs = (_fresh_need(bench, plan, group, description.labels[0]),) if plan.bank else ()
        seconds = [group.sets[i].seconds for i in unit.set_ids if group.sets[i].seconds]
        timings = (("synthesize", sum(seconds) / len(seconds)),) if seconds else ()
        return UnitStep(
            _save(bench, description),
            settled=None if plan.bank else state,
            labels=description.labels,
            labelled_as=state,
            needs=needs,
            other_timings=timings,
        )

    inputs = _each(
        group.unit_rows,
        lambda unit: (
            _load(bench, unit, "exemplars", UnitExemplars),
            _load(bench, unit, "summarize", Proposal),
        ),
    )
    answers = _through(
        inputs,
        lambda good: stages.score_concepts(bench.services, plan, group.layer.layer, good, drawn),
    )
    return _each(_paired(group.unit_rows, answers), step)


def _fresh_need(bench: Bench, plan: Plan, group: Group, label: str) -> Need:
    prompt = stages.prompt_for(plan, label)
    drawing = calibration.fresh_plan(plan)
    key = set_key(group.job.tenant, drawing, prompt, shared=bench.share_drawings)
    return Need(key, prompt, states.FRESH)


def _measure_bank(bench: Bench, plan: Plan, group: Group) -> Sequence[OrError[Result]]:
    by_prompt = {row.prompt: row for row in group.sets.values()}
    drawn = {
        concept: _drawings(by_prompt[stages.prompt_for(plan, concept)]) for concept in plan.bank
    }
    return [BankMeasured(_save(bench, calibration.measure_bank(bench.services, plan, drawn)))]


def _calibrate_labels(bench: Bench, plan: Plan, group: Group) -> Sequence[OrError[Result]]:
    assert group.bank is not None, "units are calibrated once the bank has ended"
    if group.bank.state != states.DONE:
        return [TooFewResults(group.bank.error or "There is no bank.")] * len(group.rows)
    bank = outputs.load(bench.services.artifacts, group.bank.output, Bank)

    def label_of(unit: UnitRow) -> LabelDrawn:
        assert unit.fresh_set_id is not None
        drawings = _drawings(group.sets[unit.fresh_set_id])
        if isinstance(drawings, DndError):
            raise drawings
        return LabelDrawn(unit.unit, unit.labels[0], drawings)

    def step(calibrated: tuple[UnitRow, Calibration]) -> UnitStep:
        unit, found = calibrated
        state = UnitState(unit.labelled_as)
        if state is UnitState.LABELED and found.percentile < plan.profile.calibration.threshold:
            state = UnitState.UNCERTAIN
        return UnitStep(
            _save(bench, found),
            settled=state,
            labels=tuple(unit.labels),
            percentile=found.percentile,
        )

    answers = _through(
        _each(group.unit_rows, label_of),
        lambda good: calibration.calibrate_labels(
            bench.services, plan, group.layer.layer, good, bank
        ),
    )
    return _each(_paired(group.unit_rows, answers), step)


def _paired(
    units: Sequence[UnitRow], answers: Sequence[OrError[O]]
) -> list[OrError[tuple[UnitRow, O]]]:
    """Each good answer with its unit."""
    return [
        answer if isinstance(answer, DndError) else (unit, answer)
        for unit, answer in zip(units, answers, strict=True)
    ]


_HANDLERS: dict[tuple[str, str], Callable[[Bench, Plan, Group], Sequence[OrError[Result]]]] = {
    ("index", states.SHARD): _index_shards,
    ("index", states.MERGE): _merge_shards,
    ("dissect", states.LAYER): _dissect_layers,
    ("exemplars", states.UNITS): _select_exemplars,
    ("caption", states.UNITS): _caption_exemplars,
    ("summarize", states.UNITS): _propose_concepts,
    ("synthesize", states.PROMPTS): _synthesize_images,
    ("synthesize", states.BANK): _synthesize_images,
    ("synthesize", states.FRESH): _synthesize_images,
    ("score", states.UNITS): _score_concepts,
    ("calibrate", states.BANK): _measure_bank,
    ("calibrate", states.UNITS): _calibrate_labels,
}


def _each(items: Sequence[OrError[I]], function: Callable[[I], O]) -> list[OrError[O]]:
    """`function` of each good item; an item's own error stays with that item, others are raised."""
    results: list[OrError[O]] = []
    for item in items:
        if isinstance(item, DndError):
            results.append(item)
            continue
        try:
            results.append(function(item))
        except DndError as error:
            results.append(error)
    return results


def _through(
    items: Sequence[OrError[I]], call: Callable[[list[I]], Sequence[OrError[O]]]
) -> list[OrError[O]]:
    """The answers to the good items; errors stay where they are."""
    good = [item for item in items if not isinstance(item, DndError)]
    answers = iter(call(good) if good else ())
    return [item if isinstance(item, DndError) else next(answers) for item in items]


def _save(bench: Bench, value: object) -> str:
    return outputs.save(bench.services.artifacts, value)


def _load(bench: Bench, unit: UnitRow, stage: str, cls: type[O]) -> O:
    return outputs.load(bench.services.artifacts, unit.outputs[stage], cls)
