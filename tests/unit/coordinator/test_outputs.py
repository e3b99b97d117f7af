from __future__ import annotations

from pathlib import Path

import pytest

from dnd.artifacts import ArtifactStore
from dnd.errors import NotFound
from dnd.stages import Captions, Description, ScoredCandidate
from dnd.types import (
    Box,
    Candidate,
    CandidateOrigin,
    ConceptScore,
    DecileImage,
    Exemplar,
    Proposal,
    Ranking,
    TokenUse,
    UnitActivity,
    UnitExemplars,
)
from dnd_services.coordinator import outputs

CANDIDATE = Candidate("naïve “cat”", CandidateOrigin.CAPTION_PHRASE)
VALUES = [
    UnitExemplars(
        3,
        (Exemplar("a", "b", Box(1, 2, 3, 4), 0.1 + 0.2), Exemplar("c", "c", None, -1e-300)),
        (DecileImage("d", 9, 2.5),),
        UnitActivity.SPARSE,
        "ref",
    ),
    Captions(("one", None)),
    Proposal((CANDIDATE,), TokenUse(1, 2, 3)),
    Description(
        (ScoredCandidate(CANDIDATE, "prompt", ("x",), (0.5,)), ScoredCandidate(CANDIDATE, "p")),
        Ranking((ConceptScore(0, 1.0, (2, 1), 1.5, 2.5, 1.0, -1.0, 0.0, None, 0.5),), (0,)),
    ),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_value_is_the_same_when_it_comes_back_from_the_store(tmp_path: Path, value: object) -> None:
    store = ArtifactStore(tmp_path)
    ref = outputs.save(store, value)
    assert outputs.load(store, ref, type(value)) == value
    assert outputs.save(store, value) == ref


def test_values_of_a_task_come_back_in_order_from_few_artifacts(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    values = [Captions((f"caption {place}\nof two lines", None)) for place in range(150)]
    refs = outputs.save_all(store, values)
    assert [outputs.load(store, ref, Captions) for ref in refs] == values
    assert len(set(refs)) == 150
    assert len({outputs.artifact_of(ref) for ref in refs}) == -(-150 // outputs.PACK_SIZE)
    assert outputs.save_all(store, []) == []


def test_value_is_missing_when_its_pack_is_gone(tmp_path: Path) -> None:
    (ref,) = outputs.save_all(ArtifactStore(tmp_path / "full"), [Captions(("one",))])
    with pytest.raises(NotFound, match=outputs.artifact_of(ref)):
        outputs.load(ArtifactStore(tmp_path / "empty"), ref, Captions)
