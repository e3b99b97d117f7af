"""One coordinator with a broker for the whole folder; each test has a tenant of its own.

Tenants share no drawings, so every test draws for itself and compares its records with those of
`undisturbed`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from coordinator_stack import SPEC, CoordinatorStack, finish, records, start_stack

from dnd.artifacts import ArtifactStore
from dnd.client import Client
from dnd.jobs import JobState
from dnd.testing import Fakes, start_fakes


@pytest.fixture(scope="session")
def session_fakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fakes]:
    with start_fakes(ArtifactStore(tmp_path_factory.mktemp("artifacts"))) as fakes:
        yield fakes


@pytest.fixture(scope="session")
def session_stack(
    session_fakes: Fakes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CoordinatorStack]:
    with start_stack(tmp_path_factory.mktemp("coordinator"), session_fakes) as stack:
        yield stack


@pytest.fixture
def fakes(session_fakes: Fakes) -> Iterator[Fakes]:
    session_fakes.clear_faults()
    yield session_fakes
    session_fakes.clear_faults()


@pytest.fixture
def stack(session_stack: CoordinatorStack, fakes: Fakes) -> CoordinatorStack:
    """The coordinator with exactly one worker, "first", whatever the test before has left."""
    for name in set(session_stack.workers) - {"first"}:
        session_stack.kill_worker(name)
    if session_stack.coordinator is None:
        session_stack.start_coordinator()
    if "first" not in session_stack.workers:
        session_stack.start_workers("first")
    return session_stack


@pytest.fixture
def tenant() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def client(stack: CoordinatorStack, tenant: str) -> Iterator[Client]:
    with stack.client(tenant) as client:
        yield client


@pytest.fixture(scope="session")
def undisturbed(session_stack: CoordinatorStack, session_fakes: Fakes) -> list[dict[str, Any]]:
    """The records of `SPEC`, made by one worker that nobody disturbs."""
    session_fakes.clear_faults()
    if "first" not in session_stack.workers:
        session_stack.start_workers("first")
    with session_stack.client("undisturbed") as client:
        job = finish(client, client.create_job(SPEC).id)
        assert job.state is JobState.COMPLETED
        assert job.num_failed == 0
        return records(client, job.id)
