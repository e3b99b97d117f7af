"""Jobs can be made while a stage service has no replica, where the operator says so."""

from __future__ import annotations

import pytest
from coordinator_desk import Desk

from dnd.errors import Unavailable
from dnd.jobs import JobSpec
from dnd.testing import Fakes
from dnd.types import RequestContext
from dnd_services.coordinator.planning import Planner
from dnd_services.coordinator.store.jobs import last_digests


def read_last(desk: Desk) -> dict[str, str]:
    with desk.store.reading() as session:
        return last_digests(session)


def test_job_is_frozen_to_the_weights_of_the_one_before(
    desk: Desk, fakes: Fakes, spec: JobSpec
) -> None:
    planner = Planner(desk.services, 1.0, lambda: read_last(desk))
    context = RequestContext()
    planned = planner.plan(spec, context)
    fakes.stop("synthesizer")
    with pytest.raises(Unavailable, match="synthesizer"):  # no job has ever been made
        planner.read_digests(planned, context)
    fakes.start("synthesizer")
    expected = planner.read_digests(planned, context)
    desk.create(spec)
    for name in ("captioner", "summarizer", "synthesizer", "scorer"):
        fakes.stop(name)
    assert planner.read_digests(planned, context) == expected
    with pytest.raises(Unavailable):  # where every service is expected to be up
        Planner(desk.services, 1.0).read_digests(planned, context)
