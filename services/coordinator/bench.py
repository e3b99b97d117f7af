"""What a handler works with, and how results are found again, computed and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from dnd.clients import Services
from dnd.errors import DndError, NotFound
from dnd.stages import Plan
from dnd.types import OrError, TokenUse
from dnd_services.coordinator import outputs
from dnd_services.coordinator.claiming import Group
from dnd_services.coordinator.models import JobRow, UnitRow
from dnd_services.coordinator.reuse import JobKeys
from dnd_services.coordinator.store.steps import UnitStep

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True)
class Bench:
    """What a handler works with.

    Attributes:
        services: The stage services, on behalf of the group's job.
        share_drawings: Whether tenants share drawings, and results of stages.
        recall: Finds results of stages by key; None to compute all of them.
    """

    services: Services
    share_drawings: bool = False
    recall: Callable[[Sequence[str]], Mapping[str, str]] | None = None

    def keys(self, plan: Plan, job: JobRow) -> JobKeys:
        """What results of a job are found by."""
        return JobKeys(plan, "" if self.share_drawings else job.tenant, job.id)


@dataclass(frozen=True)
class _Kept:
    """What a stage gave for a unit, and what follows from it; stored unless the step says where."""

    value: object
    step: UnitStep


def each(items: Sequence[OrError[I]], function: Callable[[I], O]) -> list[OrError[O]]:
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


def unit_results(
    bench: Bench,
    group: Group,
    cls: type[O],
    *,
    inputs: Sequence[OrError[I]],
    key_of: Callable[[I], str],
    compute: Callable[[list[I]], Sequence[OrError[O]]],
    step: Callable[[UnitRow, O], UnitStep],
    is_whole: Callable[[I, O], bool] = lambda given, value: True,
) -> list[OrError[UnitStep]]:
    """What a stage gives for the units of a group: what is there already, and the rest computed.

    Args:
        inputs: Of each unit; the error of one stays its own.
        key_of: What its result is found by; empty to compute it.
        compute: One result or error for each input, in order.
        step: What follows for the unit.
        is_whole: Whether a result lacks nothing, so that others may have it too.
    """
    named = each(inputs, lambda one: (key_of(one) if bench.recall else "", one))
    known = _recall(bench, [one[0] for one in named if not isinstance(one, DndError)], cls)
    missing = [one[1] for one in named if not isinstance(one, DndError) and one[0] not in known]
    answers = iter(compute(missing) if missing else ())

    def result(unit: UnitRow, key: str, given: I) -> OrError[_Kept]:
        if key in known:
            ref, value = known[key]
            follows = replace(step(unit, value), tokens=TokenUse(), output_ref=ref, reused=True)
            return _Kept(value, replace(follows, key=key))
        answer = next(answers)
        if isinstance(answer, DndError):
            return answer
        return _Kept(
            answer, replace(step(unit, answer), key=key if is_whole(given, answer) else "")
        )

    kept: list[OrError[_Kept]] = []
    for unit, one in zip(group.unit_rows, named, strict=True):
        try:
            kept.append(one if isinstance(one, DndError) else result(unit, *one))
        except DndError as error:
            kept.append(error)
    return _keep(bench, kept)


def _recall(bench: Bench, keys: Sequence[str], cls: type[O]) -> dict[str, tuple[str, O]]:
    """The results that are there already, by key, with their references."""
    asked = [key for key in keys if key]
    known: dict[str, tuple[str, O]] = {}
    for key, ref in (bench.recall(asked) if bench.recall and asked else {}).items():
        with suppress(NotFound):  # it is damaged: it is computed again
            known[key] = (ref, outputs.load(bench.services.artifacts, ref, cls))
    return known


def _keep(bench: Bench, answers: Sequence[OrError[_Kept]]) -> list[OrError[UnitStep]]:
    """Stores what a stage gave for the good ones of its units, together."""
    new = [one.value for one in answers if isinstance(one, _Kept) and not one.step.output_ref]
    refs = iter(outputs.save_all(bench.services.artifacts, new))
    return [
        one
        if isinstance(one, DndError)
        else one.step
        if one.step.output_ref
        else replace(one.step, output_ref=next(refs))
        for one in answers
    ]


def one_result(
    bench: Bench,
    key: str,
    read: Callable[[str], object],
    compute: Callable[[], tuple[str, bool]],
) -> tuple[str, str, bool]:
    """What a stage gives for something else than a unit, if it is there already; else computed.

    Args:
        key: What it is found by; empty to compute it.
        read: Reads what a reference refers to; raises NotFound if part of that is lost.
        compute: Answers the reference, and whether the result lacks nothing.

    Returns:
        The reference, the key that others may find it by (or ""), and whether it was there.
    """
    known = bench.recall([key]) if bench.recall and key else {}
    if key in known:
        with suppress(NotFound):
            read(known[key])
            return known[key], key, True
    ref, is_whole = compute()
    return ref, key if bench.recall and is_whole else "", False


def save(bench: Bench, value: object) -> str:
    return outputs.save(bench.services.artifacts, value)


def load(bench: Bench, unit: UnitRow, stage: str, cls: type[O]) -> O:
    return outputs.load(bench.services.artifacts, unit.outputs[stage], cls)
