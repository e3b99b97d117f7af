"""Each world is started once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
from contract.asking import Asking
from contract.worlds import World, fake_world, real_world


@pytest.fixture(scope="session", params=["fake", "real"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """The five services: fakes, then real servicers on tiny models."""
    start = fake_world if request.param == "fake" else real_world
    with start(tmp_path_factory.mktemp(cast("str", request.param))) as running:
        yield running


@pytest.fixture(scope="session")
def asking(world: World) -> Asking:
    """Good requests, over an index of the world's own network."""
    return Asking(world)
