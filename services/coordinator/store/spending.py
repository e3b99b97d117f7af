"""What jobs and tenants have really used: counters, and the limits that they are held against."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dnd.errors import FailedPrecondition
from dnd.jobs import JobState, Limits, Usage
from dnd_services.coordinator.budgets import Budgets, Price
from dnd_services.coordinator.models import CounterRow, JobRow
from dnd_services.coordinator.store.counters import Counters, Tally

_SPENT = "spent"
_NANO = 1e9
_TENANT = "t"  # ids of jobs are hexadecimal digits


def spend(
    tally: Tally,
    job: JobRow,
    *,
    num_input_tokens: int = 0,
    num_output_tokens: int = 0,
    num_images: int = 0,
    num_units: int = 0,
) -> None:
    """Counts what a job has used, for it and for its tenant."""
    price = price_of(job)
    dollars = price.dollars(num_input_tokens, num_output_tokens) if price else 0.0
    amounts = {
        "input": num_input_tokens,
        "output": num_output_tokens,
        "images": num_images,
        "units": num_units,
        "nanodollars": round(dollars * _NANO),
    }
    for owner in (job.id, tenant_key(job.tenant)):
        for kind, num in amounts.items():
            tally.add(owner, _SPENT, kind, num)


def spend_on_trial(session: Session, tenant: str, num_images: int) -> None:
    """Counts drawings that were made for no job's units."""
    tally = Tally(session)
    tally.add(tenant_key(tenant), _SPENT, "images", num_images)
    tally.write()


def expect_images_left(session: Session, tenant: str, rules: Limits) -> None:
    """Raises FailedPrecondition if a tenant has drawn as many images as its operator allows."""
    limits = Limits(max_images=rules.max_images)
    owner = tenant_key(tenant)
    if limits.any and (reached := limits.reached(read_usage(session, [owner])[owner])):
        raise FailedPrecondition(
            f"Tenant {tenant!r} has used {reached}, which its operator sets: words cannot be drawn."
        )


def price_of(job: JobRow) -> Price | None:
    """The price that a job is frozen to; None without one."""
    found = job.frozen.get("price")
    return Price(*found) if found else None


def tenant_key(tenant: str) -> str:
    """What a tenant's counters are kept under, beside those of jobs; they outlive its jobs."""
    return _TENANT + hashlib.sha256(tenant.encode()).hexdigest()[:31]


def read_usage(session: Session, owners: Sequence[str]) -> dict[str, Usage]:
    """What jobs (by id) and tenants (by `tenant_key`) have used."""
    amounts: dict[str, dict[str, int]] = {owner: {} for owner in owners}
    statement = select(CounterRow).where(CounterRow.job_id.in_(owners), CounterRow.name == _SPENT)
    for row in session.scalars(statement):
        amounts[row.job_id][row.state] = row.num
    return {owner: _usage(one) for owner, one in amounts.items()}


def usage_in(counters: Counters) -> Usage:
    """What a job has used, by its counters."""
    return _usage(counters.get(_SPENT, {}))


def _usage(amounts: Mapping[str, int]) -> Usage:
    return Usage(
        num_input_tokens=amounts.get("input", 0),
        num_output_tokens=amounts.get("output", 0),
        dollars=amounts.get("nanodollars", 0) / _NANO,
        num_images=amounts.get("images", 0),
        num_units=amounts.get("units", 0),
    )


def read_total_usage(session: Session) -> Usage:
    """What all tenants together have used; deleted jobs count too."""
    statement = (
        select(CounterRow.state, func.sum(CounterRow.num))
        .where(CounterRow.name == _SPENT, CounterRow.job_id.like(f"{_TENANT}%"))
        .group_by(CounterRow.state)
    )
    return _usage({kind: int(num) for kind, num in session.execute(statement)})


def limits_of(job: JobRow) -> Limits:
    return Limits(**job.limits)


def find_spent(session: Session, budgets: Budgets) -> dict[str, str]:
    """Running jobs that have reached a limit of theirs or of their tenant, and the reason."""
    statement = select(JobRow.id, JobRow.tenant, JobRow.limits).where(
        JobRow.state == JobState.RUNNING.value, JobRow.num_ended < JobRow.num_units
    )
    limited = [
        (job_id, tenant, own, rules)
        for job_id, tenant, fields in session.execute(statement)
        if (own := Limits(**fields)).any | (rules := budgets.rules_of(tenant)).any
    ]
    owners = {owner for job_id, tenant, *_ in limited for owner in (job_id, tenant_key(tenant))}
    used = read_usage(session, sorted(owners)) if owners else {}
    reasons = {}
    for job_id, tenant, own, rules in limited:
        if reached := own.reached(used[job_id]):
            reasons[job_id] = (
                f"It has used {reached}: `dnd resume {job_id}` goes on with a higher limit."
            )
        elif reached := rules.reached(used[tenant_key(tenant)]):
            reasons[job_id] = f"Tenant {tenant!r} has used {reached}, which its operator sets."
    return reasons
