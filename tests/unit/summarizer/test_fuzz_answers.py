"""Whatever a language model answers, a unit gets candidates or an error of its own."""

from __future__ import annotations

import asyncio
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import fuzzing
from unit.summarizer.conftest import ScriptedModel
from unit.summarizer.test_proposing import SETTINGS, UNIT, propose

from dnd.errors import DndError, Internal
from dnd.types import Proposal
from dnd_services.summarizer.prompting import PromptSets

ANSWERS = st.one_of(
    st.text(max_size=300),
    st.sampled_from(
        ("", "[]", "{}", "null", '["a", 1, null]', '{"concepts": "x"}', "```json\n[", "1.\n2.\n")
    ),
)


@pytest.mark.parametrize("one_call", [False, True])
@fuzzing(60)
@given(answer=ANSWERS)
def test_any_answer_gives_candidates_or_an_error(
    prompts: PromptSets, one_call: bool, answer: str
) -> None:
    settings = replace(SETTINGS, one_call=one_call)
    model = ScriptedModel(lambda call: answer)
    (found,) = asyncio.run(propose(model, prompts, UNIT, settings=settings))
    if isinstance(found, DndError):
        assert not isinstance(found, Internal)
        return
    assert isinstance(found, Proposal)
    for candidate in found.candidates:
        assert candidate.text.strip()
        assert "Cc" not in map(unicodedata.category, candidate.text)
