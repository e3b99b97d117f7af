"""The faults, each with its victim and its moment drawn at random; all end what they began."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from chaos.recovery import (
    Struck,
    asked_of,
    handed_out_since,
    held_by,
    lost_messages,
    struck,
)
from chaos.worlds import BROKER, RPC_DEADLINE_S, World
from coordinator_stack import SETTINGS, wait_until
from tcp_proxy import Mode, TcpProxy

from dnd.clients import SERVICE_NAMES
from dnd.errors import (
    BadAnswer,
    DndError,
    Internal,
    LlmRateLimited,
    LlmUnavailable,
    Overloaded,
    StorageFull,
)
from dnd.testing.faults import fail_times
from dnd_services.coordinator.celery_app import Task, make_app, publish
from dnd_services.coordinator.models import WorkRow
from dnd_services.coordinator.store.claims import Ticket

LEASE_S, SWEEP_S = float(str(SETTINGS["lease_s"])), float(str(SETTINGS["sweep_s"]))
STOPPED_S = 4.0
"""Longer than the leases of the tests last."""
SWEPT_S = LEASE_S + SWEEP_S
"""What the leases of a dead worker, and messages that are missing, may take to be found."""
PROBED_S = RPC_DEADLINE_S + 2.0
"""A call that began before its service was back may last until its deadline; the stage is then held
back, and probed after two seconds at most, as two probes may have failed before (0.5 s, 1 s)."""
_FAILING_S = 10.0


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        strike: Does it. Its block begins once it has struck and is over, where it must be over
            before anything can go on; what it took away is back when the block has ended.
        bound_s: What it has struck goes on within this time on a machine that does nothing else.
        max_attempts: Attempts that it may cost an item: 0 where nothing of it is an item's own.
    """

    strike: Callable[[World, random.Random], AbstractContextManager[Struck]]
    bound_s: float = SWEPT_S
    max_attempts: int = 0


def _busy_worker(world: World, rng: random.Random) -> str:
    """A worker that works on something."""

    def look() -> list[str]:
        pids = {name: process.pid for name, process in world.stack.workers.items()}
        return [name for name, pid in sorted(pids.items()) if held_by(world.stack, pid)]

    return rng.choice(wait_until(look, "a worker works on something"))


@contextmanager
def kill_worker(world: World, rng: random.Random) -> Iterator[Struck]:
    stack, name = world.stack, _busy_worker(world, rng)
    pid = stack.workers[name].pid
    stack.kill_worker(name)
    since = time.monotonic()
    yield struck(stack, [*held_by(stack, pid), *lost_messages(stack)], since)
    stack.start_workers(name, threads=1)


@contextmanager
def end_worker(world: World, rng: random.Random) -> Iterator[Struck]:
    """SIGTERM: it finishes what it has and goes."""
    stack, name = world.stack, _busy_worker(world, rng)
    process = stack.workers.pop(name)
    process.terminate()
    since = time.monotonic()
    yield struck(stack, held_by(stack, process.pid), since)
    assert process.wait(30) == 0
    stack.start_workers(name, threads=1)


@contextmanager
def freeze_worker(world: World, rng: random.Random) -> Iterator[Struck]:
    stack, name = world.stack, _busy_worker(world, rng)
    stack.freeze_worker(name)
    since = time.monotonic()
    try:
        yield struck(stack, held_by(stack, stack.workers[name].pid), since)
        time.sleep(max(0.0, since + STOPPED_S - time.monotonic()))
    finally:
        stack.thaw_worker(name)


@contextmanager
def flush_broker(world: World, rng: random.Random) -> Iterator[Struck]:
    wait_until(world.stack.num_messages, "messages wait")
    world.stack.redis.flushall()
    since = time.monotonic()
    yield struck(world.stack, lost_messages(world.stack), since)


@contextmanager
def kill_broker(world: World, rng: random.Random) -> Iterator[Struck]:
    wait_until(world.stack.num_messages, "messages wait")
    world.stack.kill_broker()
    time.sleep(rng.uniform(0, 1))
    world.stack.start_broker()
    since = time.monotonic()
    yield struck(world.stack, lost_messages(world.stack), since)


@contextmanager
def kill_coordinator(world: World, rng: random.Random) -> Iterator[Struck]:
    """It holds nothing: what it has struck is the handing out of work."""
    stack, killed_at = world.stack, time.time()
    stack.kill_coordinator()
    time.sleep(rng.uniform(0, 1))
    stack.start_coordinator()
    yield Struck(time.monotonic(), 0, lambda: bool(handed_out_since(stack, killed_at)))


@contextmanager
def kill_dispatcher_before_it_publishes(world: World, rng: random.Random) -> Iterator[Struck]:
    """What is published is on its way for two seconds: it is killed after the commit before."""
    stack, proxy = world.stack, world.proxies[BROKER]
    proxy.mode = Mode.SLOW
    at = time.time()
    wait_until(lambda: handed_out_since(stack, at), "a task is committed")
    stack.kill_coordinator()
    proxy.mode = Mode.RESET  # what is on its way never comes
    time.sleep(0.2)
    proxy.mode = Mode.PASS
    stack.start_coordinator()
    since = time.monotonic()
    yield struck(stack, lost_messages(stack), since)


@contextmanager
def deliver_again(world: World, rng: random.Random) -> Iterator[Struck]:
    """Messages of work that is under way or done, in any order: nothing is struck by them."""
    app = make_app(world.stack.redis_url)
    rows = [row for row in world.stack.rows(WorkRow) if row.fence]
    for row in rng.sample(rows, min(len(rows), 100)):
        publish(app, Task(row.stage, True, (Ticket(row.id, row.fence),)))
    app.close()
    yield struck(world.stack, [])


@contextmanager
def restart_service(world: World, rng: random.Random) -> Iterator[Struck]:
    name = rng.choice(SERVICE_NAMES)
    world.fakes.stop(name)
    time.sleep(rng.uniform(0.2, 1.5))
    world.fakes.start(name)
    since = time.monotonic()
    yield struck(world.stack, asked_of(world.stack, name), since)


def _broker_through(mode: Mode, seconds: float) -> Fault:
    @contextmanager
    def strike(world: World, rng: random.Random) -> Iterator[Struck]:
        with _through(world.proxies[BROKER], mode):
            time.sleep(seconds)
        since = time.monotonic()
        yield struck(world.stack, lost_messages(world.stack), since)

    return Fault(strike)


def _service_through(mode: Mode, seconds: float) -> Fault:
    @contextmanager
    def strike(world: World, rng: random.Random) -> Iterator[Struck]:
        name = rng.choice(SERVICE_NAMES)
        with _through(world.proxies[name], mode):
            time.sleep(seconds)
        since = time.monotonic()
        yield struck(world.stack, asked_of(world.stack, name), since)

    return Fault(strike, PROBED_S)


@contextmanager
def _through(proxy: TcpProxy, mode: Mode) -> Iterator[None]:
    proxy.mode = mode
    yield
    proxy.mode = Mode.PASS


def _calls_fail(
    services: tuple[str, ...], error: DndError, num: int, max_attempts: int = 0
) -> Fault:
    """Some calls of a service fail as a whole."""

    @contextmanager
    def strike(world: World, rng: random.Random) -> Iterator[Struck]:
        name = rng.choice(services)
        failing = _Failing(rng.randint(1, num), error)
        getattr(world.fakes, name).faults.call = failing
        yield failing.wait(world, name)

    return Fault(strike, max_attempts=max_attempts)


@contextmanager
def _garbage(world: World, rng: random.Random) -> Iterator[Struck]:
    """Answers of the language model that make no sense, for some units."""
    failing = _Failing(rng.randint(1, 6), BadAnswer("The answer is no list of concepts."))
    world.fakes.summarizer.faults.item = failing
    yield failing.wait(world, "summarizer")


class _Failing:
    """A fault of a fake that strikes some times, and knows when it did last."""

    def __init__(self, num: int, error: DndError) -> None:
        self._fault = fail_times(num, error)
        self._num = num
        self._struck_at: list[float] = []

    def __call__(self, asked: Any) -> DndError | None:
        error = self._fault(asked)
        if error is not None:
            self._struck_at.append(time.monotonic())
        return error

    def wait(self, world: World, service: str) -> Struck:
        """What the service was being asked for, or had been in vain, when the last call failed.

        There may be fewer calls than were to fail: those that come late are not waited for.
        """
        until = time.monotonic() + _FAILING_S
        while len(self._struck_at) < self._num and time.monotonic() < until:
            time.sleep(0.02)
        rows = asked_of(world.stack, service)
        return struck(world.stack, rows, self._struck_at[-1] if rows and self._struck_at else None)


FAULTS: dict[str, Fault] = {
    "worker killed": Fault(kill_worker),
    "worker ended with SIGTERM": Fault(end_worker),
    "worker stopped for longer than its lease": Fault(freeze_worker),
    "broker emptied": Fault(flush_broker),
    "broker killed": Fault(kill_broker),
    "broker: black hole": _broker_through(Mode.BLACK_HOLE, 3.0),
    "broker: connections reset": _broker_through(Mode.RESET, 1.0),
    "broker: 2 s late": _broker_through(Mode.SLOW, 5.0),
    "coordinator killed": Fault(kill_coordinator),
    "dispatcher killed between commit and publish": Fault(kill_dispatcher_before_it_publishes),
    "messages delivered twice, out of order": Fault(deliver_again),
    "service restarted": Fault(restart_service, PROBED_S),
    "service: black hole": _service_through(Mode.BLACK_HOLE, 6.0),
    "service: connections reset": _service_through(Mode.RESET, 1.0),
    "service: 2 s late": _service_through(Mode.SLOW, 5.0),
    "service overloaded": _calls_fail(
        SERVICE_NAMES, Overloaded("The queue is full.", retry_after_s=0.2), 6
    ),
    "service: disk full": _calls_fail(SERVICE_NAMES, StorageFull("No space is left."), 2),
    "call fails as a whole": _calls_fail(
        ("captioner", "summarizer", "scorer"), Internal("A defect."), 2, max_attempts=2
    ),
    "language model: 429": _calls_fail(
        ("summarizer",), LlmRateLimited("Too many requests.", retry_after_s=0.5), 4
    ),
    "language model: 500 or silent": _calls_fail(
        ("summarizer",), LlmUnavailable("It does not answer."), 4
    ),
    "language model: garbage": Fault(_garbage, max_attempts=2),
}
