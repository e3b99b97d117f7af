"""What faults strike: a coordinator with three workers, behind proxies, on one of two back ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from buckets import run_s3
from coordinator_stack import SPEC, CoordinatorStack, finish, records, start_stack
from tcp_proxy import TcpProxy, run_proxy

from dnd.bucket_artifacts import open_artifacts
from dnd.clients import SERVICE_NAMES
from dnd.jobs import JobState, LayerUnits
from dnd.stack.valkey import free_port, valkey_url
from dnd.testing import Fakes, start_fakes
from dnd.testing.postgres import start_postgres

SQLITE, POSTGRES = "sqlite+folder", "postgresql+s3"
BIG = replace(SPEC, model="broad", layers=(LayerUnits("block"),))
NUM_UNITS = 208
WORKERS = ("first", "second", "third")
BROKER = "broker"
RPC_DEADLINE_S = 5.0


@dataclass
class World:
    """A running coordinator.

    Attributes:
        proxies: Before the broker and before each stage service, by name.
        expected: The records of a quiet run of `BIG`.
    """

    stack: CoordinatorStack
    fakes: Fakes
    proxies: dict[str, TcpProxy]
    expected: list[dict[str, Any]]


@contextmanager
def start_world(backend: str, folder: Path) -> Iterator[World]:
    """A world on SQLite and a folder, or on PostgreSQL and an S3 server, until the block ends."""
    with ExitStack() as closing:
        database, artifacts = "", str(folder / "artifacts")
        if backend == POSTGRES:
            database = closing.enter_context(start_postgres()).url
            server = closing.enter_context(run_s3(folder / "s3"))
            (server.folder / "bucket").mkdir()
            closing.callback(_set_variables(server.variables))
            artifacts = "s3://bucket/chaos"
        fakes = closing.enter_context(start_fakes(open_artifacts(artifacts)))
        broker_port = free_port()
        ports = {name: int(fakes.targets[name].rpartition(":")[2]) for name in SERVICE_NAMES}
        proxies = {
            name: closing.enter_context(run_proxy(port))
            for name, port in {**ports, BROKER: broker_port}.items()
        }
        settings: dict[str, object] = {
            name: f"127.0.0.1:{proxies[name].port}" for name in SERVICE_NAMES
        }
        settings |= {"redis": valkey_url(proxies[BROKER].port), "artifacts": artifacts}
        stack = closing.enter_context(
            start_stack(
                folder / "coordinator",
                fakes,
                database,
                broker_port,
                rpc_deadline_s=RPC_DEADLINE_S,
                freeze_s=5,
                **settings,
            )
        )
        stack.start_workers(*WORKERS, threads=1)
        with stack.client("quiet") as client:
            quiet = finish(client, client.create_job(BIG).id)
            assert quiet.state is JobState.COMPLETED
            expected = records(client, quiet.id)
        assert len(expected) == NUM_UNITS
        yield World(stack, fakes, proxies, expected)


def _set_variables(variables: dict[str, str]) -> Any:
    """Sets variables of the environment; how to undo it."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)

    def undo() -> None:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

    return undo
