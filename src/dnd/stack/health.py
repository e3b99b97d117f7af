"""How the processes of a stack are: alive, ready, dead, and what they have done."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dnd.serving.metrics import ServerCounts, read_counts
from dnd.stack import valkey
from dnd.stack.home import Home, Running
from dnd.stack.processes import exit_status, find, memory_bytes

_ANSWER_S = 2.0


class Health(Enum):
    """How a process is."""

    STARTING = "starting"
    READY = "ready"
    SILENT = "not answering"
    DEAD = "dead"


@dataclass(frozen=True)
class Member:
    """A process of the stack as it is now.

    Attributes:
        address: Where it listens; empty if it does not, or not yet.
        memory_bytes: Resident memory of it and its children.
        counts: What its metrics say; None if it has none or does not answer.
    """

    running: Running
    health: Health
    address: str = ""
    memory_bytes: int = 0
    counts: ServerCounts | None = None

    @property
    def name(self) -> str:
        return self.running.name


def inspect(home: Home, *, with_counts: bool = True) -> list[Member]:
    """The processes of the home as they are now; none if nothing was started."""
    processes = home.read_state().processes
    with ThreadPoolExecutor(max(len(processes), 1)) as pool:
        return list(pool.map(lambda one: look_at(home, one, with_counts), processes))


def look_at(home: Home, one: Running, with_counts: bool = False) -> Member:
    """One process as it is now."""
    if not find(one):
        return Member(one, Health.DEAD)
    memory = memory_bytes(one)
    if one.port:
        health = Health.READY if valkey.answers(one.port) else Health.STARTING
        return Member(one, health, f"127.0.0.1:{one.port}", memory)
    found = home.read_endpoints(one.name)
    if found.get("pid") != one.pid:
        return Member(one, Health.STARTING, memory_bytes=memory)
    address, metrics = str(found.get("address", "")), str(found.get("metrics", ""))
    health = Health.READY if not address or is_serving(address) else Health.SILENT
    counts = _read_counts(metrics) if with_counts and metrics else None
    return Member(one, health, address, memory, counts)


def is_serving(address: str) -> bool:
    """Whether a gRPC server says of itself that it serves."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_ANSWER_S
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def dead_members(home: Home) -> list[Running]:
    """Processes that should run and do not."""
    return [one for one in home.read_state().processes if not find(one)]


def describe_death(home: Home, dead: Sequence[Running]) -> str:
    """What is known of processes that have died: how, and the end of the first one's log."""
    first, *others = dead
    status = exit_status(first)
    how = "has died" if status is None else f"ended with status {status}"
    more = f" So did {', '.join(one.name for one in others)}." if others else ""
    return (
        f"{first.name} (process {first.pid}) {how}.{more} The end of {home.log(first.name)}:\n"
        f"{home.log_tail(first.name)}"
    )


def _read_counts(metrics: str) -> ServerCounts | None:
    try:
        return read_counts(metrics, timeout_s=_ANSWER_S)
    except OSError:
        return None
