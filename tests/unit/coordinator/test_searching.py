"""Which encoder compares labels with what is meant."""

from __future__ import annotations

import importlib.util

import pytest
from coordinator_desk import Desk

from dnd.errors import ModelMissing
from dnd.evaluation.sentences import MODEL, PACKAGE
from dnd_services.coordinator import searching
from dnd_services.coordinator.searching import MAX_SENTENCES, find_encoder


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not there")
def test_sentences_are_compared_where_their_encoder_is_installed(desk: Desk) -> None:
    encoder = find_encoder(desk.services, MAX_SENTENCES)
    assert encoder.model == MODEL
    rain, wheel, meant = encoder.embed(["rain drops", "wheel", "bad weather"])
    assert rain @ meant > wheel @ meant + 0.1


def test_the_scorer_embeds_what_the_sentence_encoder_cannot(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = desk.services.scorer.get_model().digest
    assert find_encoder(desk.services, MAX_SENTENCES + 1).model == scorer

    def missing() -> None:
        raise ModelMissing("not installed")

    monkeypatch.setattr(searching, "load_sentence_encoder", missing)
    encoder = find_encoder(desk.services, 1)
    assert encoder.model == scorer
    (vector,) = encoder.embed(["wheel"])
    (expected,) = desk.services.scorer.embed_texts(["wheel"], scorer)
    assert list(vector) == list(expected)
