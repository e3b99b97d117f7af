"""One handler for each kind of work: reads inputs, calls the stage function, keeps its outputs.

The method is in `dnd.stages`; nothing of it is repeated here. A handler answers one outcome for
each row of its group, in order; where the call as a whole fails, it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dnd import calibration, stages
from dnd.calibration import Bank, Calibration, LabelDrawn
from dnd.errors import BadAnswer, DndError, Internal, TooFewResults, VersionSkew
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
from dnd_services.coordinator import outputs, reuse, states
from dnd_services.coordinator.bench import Bench, each, load, one_result, save, unit_results
from dnd_services.coordinator.claiming import Group
from dnd_services.coordinator.dissections import open_dissection
from dnd_services.coordinator.frozen import artifact_key, set_key, shards_of
from dnd_services.coordinator.models import ImageSetRow, UnitRow, WorkRow
from dnd_services.coordinator.outcomes import (
    BankMeasured,
    LayerDissected,
    Outcome,
    SetDrawn,
    ShardIndexed,
    ShardsMerged,
)
from dnd_services.coordinator.store.rows import count_live, encode_activities
from dnd_services.coordinator.store.sets import Need
from dnd_services.coordinator.store.steps import MergedLayer, UnitStep

MIN_SPARSE_SOURCES = 3
"""A sparse unit is labelled from that many different images at least (METHOD, "Sparse")."""


def handle(bench: Bench, plan: Plan, group: Group) -> Sequence[Outcome]:
    """Does the work of a group; one result or error for each of its rows.

    Raises:
        VersionSkew: A later version has added this kind of work.
        DndError: The call failed as a whole.
    """
    handler = _HANDLERS.get((group.stage, group.scope))
    if handler is None:
        raise VersionSkew(
            f"This worker does not know work of stage {group.stage!r} on {group.scope!r}: it is of "
            "an older version than the coordinator. Upgrade it."
        )
    return handler(bench, plan, group)


def _index_shards(bench: Bench, plan: Plan, group: Group) -> Sequence[Outcome]:
    shards = shards_of(group.job)
    return each(
        group.works,
        lambda work: ShardIndexed(stages.index_shard(bench.services, plan, *shards[work.ordinal])),
    )


def _merge_shards(bench: Bench, plan: Plan, group: Group) -> Sequence[Outcome]:
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


def _dissect_layers(bench: Bench, plan: Plan, group: Group) -> Sequence[Outcome]:
    keys = bench.keys(plan, group.job).dissections()

    def dissect(work: WorkRow) -> LayerDissected:
        index_ref = group.layers[work.ordinal].index_ref
        found = one_result(
            bench,
            keys.of(index_ref),
            read=lambda ref: open_dissection(
                bench.services.artifacts, ref, plan.concepts_ref, plan.manifest_ref
            ),
            compute=lambda: (stages.dissect_layer(bench.services, plan, index_ref), True),
        )
        return LayerDissected(*found)

    return [dissect(work) for work in group.works]


def _select_exemplars(bench: Bench, plan: Plan, group: Group) -> Sequence[Outcome]:
    index_ref = group.layer.index_ref
    keys = bench.keys(plan, group.job).exemplars(index_ref)

    def step(_: UnitRow, found: UnitExemplars) -> UnitStep:
        if found.activity is UnitActivity.LIVE and not found.exemplars:
            raise BadAnswer(f"Unit {found.unit} is live and has no exemplars.")
        return UnitStep(settled=_settled_without_label(found))

    return unit_results(
        bench,
        group,
        UnitExemplars,
        inputs=[unit.unit for unit in group.unit_rows],
        key_of=keys.of,
        compute=lambda units: stages.select_exemplars(bench.services, plan, index_ref, units),
        step=step,
    )


def _settled_without_label(found: UnitExemplars) -> UnitState | None:
    """The state of a unit that has nothing to be labelled from."""
    if found.activity in (UnitActivity.DEAD, UnitActivity.TIED):
        return UnitState(found.activity.value)
    sources = {exemplar.source for exemplar in found.exemplars}
    if found.activity is UnitActivity.SPARSE and len(sources) < MIN_SPARSE_SOURCES:
        return UnitState.SPARSE
    return None


def _caption_exemplars(bench: Bench, plan: Plan, group: Group) -> Sequence[Outcome]:
    keys = bench.keys(plan, group.job).captions()
    return unit_results(
        bench,
        group,
        Captions,
        inputs=each(group.unit_rows, lambda unit: load(bench, unit, "exemplars", UnitExemplars)),
        key_of=lambda unit: keys.of(*reuse.captioned(plan, unit)),
        compute=lambda units: stages.caption_exemplars(bench.services, plan, units),
        step=lambda _, captions: UnitStep(),
        is_whole=lambda unit, captions: reuse.has_all_captions(plan, unit, captions),
    )


def _propose_concepts(bench: Bench, plan: Plan, group: Group) -> Sequence[Outcome]:
    layer = group.layer.layer
    dissected = _dissected(bench, plan, group)
    keys = bench.keys(plan, group.job).proposals()

    def key_of(given: tuple[int, Captions]) -> str:
        unit, captions = given
        asked = stages.concepts_asked(plan, layer, unit, captions, dissected.get(unit))
        return keys.of(*reuse.asked_of(asked))

    def step(_: UnitRow, proposal: Proposal) -> UnitStep:
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
        return UnitStep(needs=needs, tokens=tokens)

    return unit_results(
        bench,
        group,
        Proposal,
        inputs=each(
            group.unit_rows, lambda unit: (unit.unit, load(bench, unit, "caption", Captions))
        ),
        key_of=key_of,
        compute=lambda given: stages.propose_concepts(
            bench.services, plan, layer, given, dissected
        ),
        step=step,
    )


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


def _synthesize_images(bench: Bench, plan: Plan, group: Group) -> Sequence[Outcome]:
    prompts = [row.prompt for row in group.rows if isinstance(row, ImageSetRow)]
    answers = stages.synthesize_images(bench.services, _DRAWN_BY[group.scope](plan), prompts)
    return each(answers, lambda image_set: SetDrawn(image_set.images))


_DRAWN_BY: dict[str, Callable[[Plan], Plan]] = {
    states.PROMPTS: lambda plan: plan,
    states.BANK: calibration.bank_plan,
    states.FRESH: calibration.fresh_plan,
}


def _drawings(row: ImageSetRow) -> OrError[ImageSet]:
    if row.state == states.DONE:
        return ImageSet(artifact_key(row.key), tuple(row.images))
    return TooFewResults(row.error or "It was not drawn.")


def _score_concepts(bench: Bench, plan: Plan, group: Group) -> Sequence[Outcome]:
    layer = group.layer.layer
    drawn = {row.prompt: _drawings(row) for row in group.sets.values()}
    keys = bench.keys(plan, group.job).scores(layer)

    def key_of(given: tuple[UnitExemplars, Proposal]) -> str:
        scored = reuse.scored(plan, *given, drawn)
        return keys.of(*scored) if scored else ""

    def step(unit: UnitRow, description: Description) -> UnitStep:
        if not all(part.labels for part in description.parts):
            raise Internal("The scorer ranked the candidates and kept no label.")
        exemplars = load(bench, unit, "exemplars", UnitExemplars)
        sparse = exemplars.activity is UnitActivity.SPARSE
        state = UnitState.SPARSE if sparse else UnitState.LABELED
        needs = (_fresh_need(bench, plan, group, description.labels[0]),) if plan.bank else ()
        seconds = [group.sets[i].seconds for i in unit.set_ids if group.sets[i].seconds]
        timings = (("synthesize", sum(seconds) / len(seconds)),) if seconds else ()
        return UnitStep(
            settled=None if plan.bank else state,
            labels=description.labels,
            labelled_as=state,
            needs=needs,
            other_timings=timings,
        )

    return unit_results(
        bench,
        group,
        Description,
        inputs=each(
            group.unit_rows,
            lambda unit: (
                load(bench, unit, "exemplars", UnitExemplars),
                load(bench, unit, "summarize", Proposal),
            ),
        ),
        key_of=key_of,
        compute=lambda given: stages.score_concepts(bench.services, plan, layer, given, drawn),
        step=step,
        is_whole=lambda _, description: reuse.has_all_scores(description),
    )


def _fresh_need(bench: Bench, plan: Plan, group: Group, label: str) -> Need:
    prompt = stages.prompt_for(plan, label)
    drawing = calibration.fresh_plan(plan)
    key = set_key(group.job.tenant, drawing, prompt, shared=bench.share_drawings)
    return Need(key, prompt, states.FRESH)


def _measure_bank(bench: Bench, plan: Plan, group: Group) -> Sequence[Outcome]:
    by_prompt = {row.prompt: row for row in group.sets.values()}
    drawn = {
        concept: _drawings(by_prompt[stages.prompt_for(plan, concept)]) for concept in plan.bank
    }
    keys = bench.keys(plan, group.job).bank()
    measured = reuse.bank_drawn(drawn)

    def read(ref: str) -> None:
        bank = outputs.load(bench.services.artifacts, ref, Bank)
        for array_ref in (bank.embeddings_ref, *bank.activations_refs):
            bench.services.artifacts.get_array(array_ref)

    def measure() -> tuple[str, bool]:
        bank = calibration.measure_bank(bench.services, plan, drawn)
        return save(bench, bank), len(bank.concepts) == len(plan.bank)

    return [BankMeasured(*one_result(bench, keys.of(*measured) if measured else "", read, measure))]


def _calibrate_labels(bench: Bench, plan: Plan, group: Group) -> Sequence[Outcome]:
    assert group.bank is not None, "units are calibrated once the bank has ended"
    if group.bank.state != states.DONE:
        return [TooFewResults(group.bank.error or "There is no bank.")] * len(group.rows)
    bank = outputs.load(bench.services.artifacts, group.bank.output, Bank)
    layer = group.layer.layer
    keys = bench.keys(plan, group.job).calibrations(layer, group.bank.output)

    def label_of(unit: UnitRow) -> LabelDrawn:
        assert unit.fresh_set_id is not None
        drawings = _drawings(group.sets[unit.fresh_set_id])
        if isinstance(drawings, DndError):
            raise drawings
        return LabelDrawn(unit.unit, unit.labels[0], drawings)

    def step(unit: UnitRow, found: Calibration) -> UnitStep:
        state = UnitState(unit.labelled_as)
        if state is UnitState.LABELED and found.percentile < plan.profile.calibration.threshold:
            state = UnitState.UNCERTAIN
        return UnitStep(settled=state, labels=tuple(unit.labels), percentile=found.percentile)

    return unit_results(
        bench,
        group,
        Calibration,
        inputs=each(group.unit_rows, label_of),
        key_of=lambda label: keys.of(label.unit, label.text, label.drawings.images),
        compute=lambda labels: calibration.calibrate_labels(
            bench.services, plan, layer, labels, bank
        ),
        step=step,
    )


_HANDLERS: dict[tuple[str, str], Callable[[Bench, Plan, Group], Sequence[Outcome]]] = {
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
