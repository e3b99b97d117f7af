"""Each fault, on each back end, with each seed: `make chaos`. Part of them run in `make test`.

While a job of 208 units runs, one fault strikes. Every unit must end once, with the records of a
quiet run; counters must equal the rows, nothing may be left open, and attempts are bounded. What it
struck must have gone on in time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from chaos.faults import FAULTS, Fault
from chaos.recovery import Struck, wait_for_recovery
from chaos.worlds import BIG, NUM_UNITS, WORKERS, World
from coordinator_desk import check_counters
from coordinator_stack import CoordinatorStack, finish, records, wait_until

from dnd.clients import SERVICE_NAMES
from dnd.jobs import JobState, UnitState
from dnd_services.coordinator import states
from dnd_services.coordinator.models import WorkRow

LATENCY_S = 0.15
"""Of each call while the job runs, so that there is something to disturb."""
SLACK_S = 2.0
"""For rounds, sweeps, processes and calls that a loaded machine keeps waiting."""


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_lost_or_doubled_when_a_fault_strikes(
    world: World, seed: int, name: str, record_recovery: Callable[[str, Fault, Struck, float], None]
) -> None:
    rng, fault = random.Random(f"{name} {seed}"), FAULTS[name]
    stack, fakes = world.stack, world.fakes
    tenant = f"{name} {seed} {time.time():.0f}"[:64]
    slow_down(world, LATENCY_S)
    with stack.client(tenant, retry_s=60.0) as client:
        job_id = client.create_job(BIG).id
        wait_until(lambda: is_under_way(stack, job_id), "units are worked on")
        time.sleep(rng.uniform(0, 2))
        assert not client.get_job(job_id).state.ended, "there is nothing left to disturb"
    with fault.strike(world, rng) as struck:
        recovery_s = wait_for_recovery(struck)
    record_recovery(name, fault, struck, recovery_s)
    slow_down(world, 0.0)
    with stack.client(tenant, retry_s=60.0) as client:  # the coordinator may have another port
        job = finish(client, job_id)
        assert job.state is JobState.COMPLETED
        assert sum(job.units.values()) == NUM_UNITS
        assert not {UnitState.PENDING, UnitState.FAILED}.intersection(job.units)
        assert records(client, job_id) == world.expected
    fakes.clear_faults()
    check_counters(stack.store, job_id)
    rows = stack.claimables(job_id)
    assert max(row.attempts for row in rows) <= fault.max_attempts
    assert {row.state for row in rows} <= {states.DONE, states.SKIPPED}
    assert set(stack.workers) == set(WORKERS)
    assert recovery_s <= fault.bound_s + SLACK_S


def slow_down(world: World, latency_s: float) -> None:
    for name in SERVICE_NAMES:
        getattr(world.fakes, name).faults.latency_s = latency_s


def is_under_way(stack: CoordinatorStack, job_id: str) -> bool:
    rows = stack.rows(WorkRow, job_id=job_id, state=states.RUNNING)
    return any(row.scope == states.UNITS for row in rows)
