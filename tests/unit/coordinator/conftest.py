"""Fixtures of the coordinator's unit tests: fakes that serve, and a coordinator in this thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from coordinator_api import make_servicer
from coordinator_desk import SMALL, Desk, open_desk

from dnd.artifacts import ArtifactStore
from dnd.jobs import JobSpec, LayerUnits
from dnd.testing import Fakes, start_fakes
from dnd_services.coordinator.servicer import CoordinatorServicer


@pytest.fixture(scope="session")
def shared_fakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fakes]:
    with start_fakes(ArtifactStore(tmp_path_factory.mktemp("artifacts"))) as fakes:
        yield fakes


@pytest.fixture
def fakes(shared_fakes: Fakes) -> Iterator[Fakes]:
    yield shared_fakes
    shared_fakes.clear_faults()


@pytest.fixture
def desk(fakes: Fakes, tmp_path: Path) -> Iterator[Desk]:
    with open_desk(fakes, tmp_path) as desk:
        yield desk


@pytest.fixture
def spec() -> JobSpec:
    """20 units of two layers: of them dead 1, tied 1, sparse 1."""
    return JobSpec(
        model="tiny",
        layers=(
            LayerUnits("features.conv", tuple(range(4, 20))),
            LayerUnits("classifier", (0, 3, 4, 9)),
        ),
        probe="shapes",
        profile="starter",
        overrides=SMALL,
        seed=7,
    )


@pytest.fixture
def job_id(desk: Desk, spec: JobSpec) -> str:
    """A job that has ended."""
    made = desk.create(spec)
    desk.run_to_end(made)
    return made


@pytest.fixture
def servicer(desk: Desk) -> Iterator[CoordinatorServicer]:
    servicer = make_servicer(desk)
    yield servicer
    servicer.close()
