"""Fixtures of the coordinator's unit tests: fakes that serve, and a coordinator in this thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from coordinator_desk import SMALL, Clock, Desk

from dnd.artifacts import ArtifactStore
from dnd.clients import Services
from dnd.jobs import JobSpec, LayerUnits
from dnd.testing import Fakes, start_fakes
from dnd_services.coordinator.migrate import migrate
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.store import Store


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
    settings = CoordinatorSettings(
        artifacts=str(fakes.artifacts.root),
        database=f"sqlite:///{tmp_path}/record.db",
        redis="redis://127.0.0.1:1/0",
        **fakes.targets,
        lease_s=3.0,
        renew_s=1.0,
        sweep_s=1.0,
        rpc_deadline_s=20.0,
    )
    clock = Clock()
    store = Store(settings.database, clock)
    migrate(store)
    services = Services.connect(fakes.targets, fakes.artifacts, deadline_s=20.0)
    yield Desk(store, fakes, services, settings, clock)
    services.close()
    store.close()


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
