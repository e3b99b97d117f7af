"""The faults, each with its victim and its moment drawn at random; all end what they began."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from chaos.worlds import BROKER, WORKERS, World
from tcp_proxy import Mode

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

STOPPED_S = 4.0
"""Longer than the leases of the tests last."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        strike: Does it, and returns once it is over.
        max_attempts: Attempts that it may cost an item: 0 where nothing of it is an item's own.
    """

    strike: Callable[[World, random.Random], None]
    max_attempts: int = 0


def kill_worker(world: World, rng: random.Random) -> None:
    name = rng.choice(WORKERS)
    world.stack.kill_worker(name)
    time.sleep(rng.uniform(0, 1))
    world.stack.start_workers(name, threads=1)


def end_worker(world: World, rng: random.Random) -> None:
    """SIGTERM: it finishes what it has and goes."""
    name = rng.choice(WORKERS)
    assert world.stack.stop_worker(name) == 0
    world.stack.start_workers(name, threads=1)


def freeze_worker(world: World, rng: random.Random) -> None:
    name = rng.choice(WORKERS)
    world.stack.freeze_worker(name)
    time.sleep(STOPPED_S)
    world.stack.thaw_worker(name)


def flush_broker(world: World, rng: random.Random) -> None:
    world.stack.redis.flushall()


def kill_broker(world: World, rng: random.Random) -> None:
    world.stack.kill_broker()
    time.sleep(rng.uniform(0, 1))
    world.stack.start_broker()


def kill_coordinator(world: World, rng: random.Random) -> None:
    world.stack.kill_coordinator()
    time.sleep(rng.uniform(0, 1))
    world.stack.start_coordinator()


def kill_dispatcher_before_it_publishes(world: World, rng: random.Random) -> None:
    """The broker takes nothing, so that what has been committed cannot be published."""
    stack = world.stack
    assert stack.broker is not None
    stack.broker.send_signal(signal.SIGSTOP)
    time.sleep(rng.uniform(0.5, 1.5))
    stack.kill_coordinator()
    stack.broker.send_signal(signal.SIGCONT)
    stack.start_coordinator()


def deliver_again(world: World, rng: random.Random) -> None:
    """Messages of work that is under way or done, in any order."""
    app = make_app(world.stack.redis_url)
    rows = [row for row in world.stack.rows(WorkRow) if row.fence]
    for row in rng.sample(rows, min(len(rows), 100)):
        publish(app, Task(row.stage, True, (Ticket(row.id, row.fence),)))
    app.close()


def restart_service(world: World, rng: random.Random) -> None:
    name = rng.choice(SERVICE_NAMES)
    world.fakes.stop(name)
    time.sleep(rng.uniform(0.2, 1.5))
    world.fakes.start(name)


def _through(name_of: Callable[[random.Random], str], mode: Mode, seconds: float) -> Fault:
    def strike(world: World, rng: random.Random) -> None:
        proxy = world.proxies[name_of(rng)]
        proxy.mode = mode
        time.sleep(seconds)
        proxy.mode = Mode.PASS

    return Fault(strike)


def _broker(_: random.Random) -> str:
    return BROKER


def _leg(rng: random.Random) -> str:
    return rng.choice(SERVICE_NAMES)


def _calls_fail(
    services: tuple[str, ...], error: DndError, num: int, max_attempts: int = 0
) -> Fault:
    """Some calls of a service fail as a whole."""

    def strike(world: World, rng: random.Random) -> None:
        faults = getattr(world.fakes, rng.choice(services)).faults
        faults.call = fail_times(rng.randint(1, num), error)

    return Fault(strike, max_attempts)


def _garbage(world: World, rng: random.Random) -> None:
    """Answers of the language model that make no sense, for some units."""
    error = BadAnswer("The answer is no list of concepts.")
    world.fakes.summarizer.faults.item = fail_times(rng.randint(1, 6), error)


FAULTS: dict[str, Fault] = {
    "worker killed": Fault(kill_worker),
    "worker ended with SIGTERM": Fault(end_worker),
    "worker stopped for longer than its lease": Fault(freeze_worker),
    "broker emptied": Fault(flush_broker),
    "broker killed": Fault(kill_broker),
    "broker: black hole": _through(_broker, Mode.BLACK_HOLE, 3.0),
    "broker: connections reset": _through(_broker, Mode.RESET, 1.0),
    "broker: 2 s late": _through(_broker, Mode.SLOW, 5.0),
    "coordinator killed": Fault(kill_coordinator),
    "dispatcher killed between commit and publish": Fault(kill_dispatcher_before_it_publishes),
    "messages delivered twice, out of order": Fault(deliver_again),
    "service restarted": Fault(restart_service),
    "service: black hole": _through(_leg, Mode.BLACK_HOLE, 6.0),
    "service: connections reset": _through(_leg, Mode.RESET, 1.0),
    "service: 2 s late": _through(_leg, Mode.SLOW, 5.0),
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
