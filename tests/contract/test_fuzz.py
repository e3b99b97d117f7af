"""Requests that are wrong somewhere are answered or refused: no defect, no hang, no lost server."""

from __future__ import annotations

import pytest
from contract.asking import Asking
from contract.worlds import SERVICE_OF, World
from hypothesis import given, note
from hypothesis import strategies as st
from mutations import fuzzing, mutated

from dnd.errors import DeadlineExceeded, DndError, Internal


@pytest.mark.parametrize("method", SERVICE_OF)
@fuzzing(12)
@given(data=st.data())
def test_mutated_requests_are_answered_or_refused(
    world: World, asking: Asking, method: str, data: st.DataObject
) -> None:
    request = mutated(data, asking.good(method))
    note(str(request)[:2000])
    try:
        world.ask(method, request)
    except (Internal, DeadlineExceeded):
        raise
    except DndError:
        pass


def test_services_still_answer_after_all_that(world: World, asking: Asking) -> None:
    for method in SERVICE_OF:
        world.ask(method, asking.good(method))
