"""Requests to the coordinator that are wrong somewhere are answered or refused."""

from __future__ import annotations

import pytest
from coordinator_desk import Desk
from hypothesis import given
from hypothesis import strategies as st
from mutations import fuzzing, mutated

from dnd.errors import DndError, Internal
from dnd.jobs import JobSpec, spec_to_message
from dnd_services.coordinator.paging import read_spec, read_token


@fuzzing(80)
@given(data=st.data())
def test_mutated_specifications_make_jobs_or_are_refused(
    desk: Desk, spec: JobSpec, data: st.DataObject
) -> None:
    message = mutated(data, spec_to_message(spec))
    try:
        desk.create(read_spec(message), data.draw(st.uuids()).hex)
    except Internal:
        raise
    except DndError:
        pass


@fuzzing(100)
@given(token=st.text(max_size=60), kind=st.sampled_from(("jobs", "units")))
def test_any_token_is_read_or_refused(token: str, kind: str) -> None:
    with pytest.raises(DndError):
        read_token(token, kind, int)
