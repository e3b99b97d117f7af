"""REST keeps to its OpenAPI: requests of all kinds, made from the schema, are answered by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from coordinator_api import make_servicer
from coordinator_desk import Clock, Desk
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS, load_all_checks

from dnd.artifacts import ArtifactStore
from dnd.clients import Services
from dnd.serving import Metrics
from dnd.testing import start_fakes
from dnd_services.coordinator.access import Gate
from dnd_services.coordinator.migrate import migrate
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.web.app import PREFIX, create_app
from dnd_services.coordinator.web.rest import ROUTES

EXAMPLES = 8
"""Requests of each route."""
_NAMES = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_schema_conformance", "negative_data_rejection"),
)


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """REST over an empty record, with artifacts of its own: garbage is really removed."""
    folder = tmp_path_factory.mktemp("openapi")
    with start_fakes(ArtifactStore(_made(folder / "artifacts"))) as fakes:
        coordinator = CoordinatorSettings(
            artifacts=str(fakes.artifacts.root),
            database=f"sqlite:///{folder}/record.db",
            redis="redis://127.0.0.1:1/0",
            **fakes.targets,
        )
        store = Store(coordinator.database)
        migrate(store)
        services = Services.connect(fakes.targets, fakes.artifacts, deadline_s=20.0)
        servicer = make_servicer(Desk(store, fakes, services, coordinator, Clock()))
        app = create_app(servicer, Gate(store, coordinator), Metrics())
        found = schemathesis.openapi.from_asgi(
            f"{PREFIX}/openapi.json", app, headers={"host": "127.0.0.1"}
        )
        yield found
        servicer.close()
        services.close()
        store.close()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("method", [route.method for route in ROUTES] + ["GetImages"])
def test_answers_are_those_that_the_schema_promises(schema: Any, method: str) -> None:
    load_all_checks()
    checks = CHECKS.get_by_names(_NAMES)
    operation = next(
        found
        for one in schema.get_all_operations()
        if (found := one.ok()).definition.raw["operationId"] == method
    )

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        case.call_and_validate(checks=checks, headers={"host": "127.0.0.1"})

    check()
