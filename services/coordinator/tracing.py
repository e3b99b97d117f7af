"""What a worker says of the work on a group of rows: in spans, and in its log lines.

A job's work joins the trace of the call that made it. A unit is found there, stage by stage, by
dnd.job, dnd.layer and dnd.unit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dnd import logs, telemetry
from dnd.errors import Cancelled, DndError, Kind, kind_of
from dnd_services.coordinator import states
from dnd_services.coordinator.claiming import Group
from dnd_services.coordinator.outcomes import Outcome, Report
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.store.sets import Waiting, find_waiting
from dnd_services.coordinator.store.steps import UnitStep

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroupSpan:
    """An open span around the work on a group.

    Attributes:
        layer: The layer of the group's units; empty for other scopes.
        units: Those units.
        waiting: Who waits for the group's drawings; empty while there are no traces.
    """

    group: Group
    layer: str
    units: tuple[int, ...]
    waiting: tuple[Waiting, ...]

    def end(self, report: Report, num_written: int) -> None:
        """Says what came of the group: in a line, and in a span for each unit."""
        group = self.group
        bad = [one for one in report.outcomes if isinstance(one, DndError)]
        num_late = len(group.rows) - num_written
        log.info(
            "stage %s: %d of %d done in %.2f s%s",
            group.stage,
            len(group.rows) - len(bad),
            len(group.rows),
            report.seconds,
            f", {num_late} came too late" if num_late else "",
        )
        if report.failed_whole:
            level = logging.INFO if isinstance(bad[0], Cancelled) else logging.WARNING
            log.log(level, "stage %s failed as a whole: %s", group.stage, bad[0].message)
            telemetry.fail(type(bad[0]).__name__)
        else:
            self._log_failures(report.outcomes)
        if telemetry.is_on():
            self._record_units(report)

    def _log_failures(self, outcomes: Sequence[Outcome]) -> None:
        """A line for each unit whose own fault it is; others are tried again."""
        for place, outcome in enumerate(outcomes):
            if isinstance(outcome, DndError) and kind_of(outcome) is Kind.ITEM:
                unit = self.units[place : place + 1] if self.layer else ()
                with logs.bound(units=list(unit)):
                    log.warning("stage %s failed: %s", self.group.stage, outcome.message)

    def _record_units(self, report: Report) -> None:
        group, around = self.group, telemetry.traceparent()
        name = f"{group.stage} unit"
        for unit, outcome in zip(self.units if self.layer else (), report.outcomes, strict=False):
            error = type(outcome).__name__ if isinstance(outcome, DndError) else ""
            attributes: dict[str, telemetry.Value] = {
                **_unit_attributes(group.stage, group.job.id, self.layer, unit),
                "dnd.reused": isinstance(outcome, UnitStep) and outcome.reused,
            }
            telemetry.record(name, report.seconds, attributes, error=error)
        for one in self.waiting:
            elsewhere = one.job_id != group.job.id
            telemetry.record(
                name,
                report.seconds,
                _unit_attributes(group.stage, one.job_id, one.layer, one.unit),
                parent=one.trace if elsewhere else "",
                links=[around] if elsewhere else (),
            )


@contextmanager
def traced(store: Store, group: Group) -> Iterator[GroupSpan]:
    """The span of the work on a group, and the fields of its log lines."""
    opened = _look_at(store, group)
    job, message = group.job, telemetry.traceparent()
    # A task may bring drawings that another job needs by now: they belong to that one's trace.
    strange = telemetry.trace_of(message) != telemetry.trace_of(job.trace)
    attributes: dict[str, telemetry.Value] = {
        "dnd.job": job.id,
        "dnd.stage": group.stage,
        "dnd.scope": group.scope,
        "dnd.num_items": len(group.rows),
        **({"dnd.layer": opened.layer} if opened.layer else {}),
        **({"dnd.units": opened.units} if opened.units else {}),
    }
    with (
        logs.bound(job=job.id, stage=group.stage, layer=opened.layer, units=list(opened.units)),
        telemetry.span(
            group.stage,
            parent=job.trace if strange else "",
            attributes=attributes,
            links=[message] if strange and job.trace and message else (),
        ),
    ):
        yield opened


def _look_at(store: Store, group: Group) -> GroupSpan:
    if group.scope == states.UNITS:
        units = tuple(row.unit for row in group.unit_rows)
        return GroupSpan(group, group.layer.layer, units, ())
    if group.stage != "synthesize" or not telemetry.is_on():
        return GroupSpan(group, "", (), ())
    with store.reading() as session:
        waiting = tuple(find_waiting(session, [row.id for row in group.rows]))
    return GroupSpan(group, "", (), waiting)


def _unit_attributes(stage: str, job: str, layer: str, unit: int) -> dict[str, telemetry.Value]:
    return {"dnd.job": job, "dnd.stage": stage, "dnd.layer": layer, "dnd.unit": unit}
