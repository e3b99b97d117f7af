"""Sampling: a row's answer is its own, whoever shares the batch."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from dnd_services.summarizer.decoding import (
    MIN_P,
    Bucket,
    Decoder,
    Row,
    Tokens,
    _draw,
    bucket_of,
)

PREFIX = tuple(range(10, 31))
RESTS: list[Tokens] = [
    tuple(range(start, start + length))
    for start, length in ((40, 1), (50, 9), (60, 30), (90, 17), (45, 25), (110, 3))
]
NEVER: frozenset[int] = frozenset()


@pytest.fixture(scope="module")
def model(llama: Path) -> torch.nn.Module:
    torch.set_num_threads(1)
    loaded: torch.nn.Module = AutoModelForCausalLM.from_pretrained(llama, dtype="float32").eval()
    return loaded


def decoder(model: torch.nn.Module, num_rows: int = 6) -> Decoder:
    return Decoder(model, NEVER, NEVER, num_rows)


def test_rows_are_answered_as_by_the_library_when_greedy(model: torch.nn.Module) -> None:
    model = copy.deepcopy(model).double()  # float32 prompts are read with rougher products
    bucket = Bucket(PREFIX, 64, 8)
    answers = decoder(model).generate(bucket, [Row(rest, 0.0, 0) for rest in RESTS])
    for rest, answer in zip(RESTS, answers, strict=True):
        asked = torch.tensor([[*PREFIX, *rest]])
        expected = model.generate(  # type: ignore[operator]
            asked, do_sample=False, max_new_tokens=8, eos_token_id=None, pad_token_id=0
        )
        assert list(answer) == expected[0, asked.shape[1] :].tolist()


def test_row_is_answered_the_same_alone_and_in_any_company(model: torch.nn.Module) -> None:
    bucket = Bucket(PREFIX, 64, 8)
    rows = [Row(rest, 1.5, seed) for seed, rest in enumerate(RESTS)]
    together = decoder(model).generate(bucket, rows)
    assert decoder(model).generate(bucket, rows[::-1]) == together[::-1]
    alone = [decoder(model).generate(bucket, [row])[0] for row in rows]
    assert alone == together


def test_answer_follows_from_the_seed(model: torch.nn.Module) -> None:
    bucket = Bucket(PREFIX, 64, 8)
    rows = [Row(RESTS[1], 2.0, seed) for seed in (1, 2, 1, 3, 4, 5)]
    answers = decoder(model).generate(bucket, rows)
    assert answers[0] == answers[2]
    assert len(set(answers)) > 2


def test_prefix_that_is_kept_gives_the_answer_of_one_that_is_not(model: torch.nn.Module) -> None:
    row, whole = Row(RESTS[2], 0.0, 0), Row((*PREFIX, *RESTS[2]), 0.0, 0)
    kept = decoder(model).generate(Bucket(PREFIX, 64, 8), [row])
    assert kept == decoder(model).generate(Bucket((), 64, 8), [whole])


def test_answer_ends_with_its_first_line_only_when_asked_to(model: torch.nn.Module) -> None:
    row = Row(RESTS[1], 0.0, 0)
    (free,) = decoder(model).generate(Bucket(PREFIX, 64, 8), [row])
    end = free[2]
    stopping = Decoder(model, NEVER, frozenset({end}), 6)
    (cut,) = stopping.generate(Bucket(PREFIX, 64, 8, one_line=True), [row])
    assert cut == free[: free.index(end) + 1]
    assert stopping.generate(Bucket(PREFIX, 64, 8, one_line=False), [row]) == [free]


def test_bucket_rounds_lengths_up() -> None:
    assert bucket_of((1, 2), (3,), 5) == bucket_of((1, 2), tuple(range(62)), 5)
    assert bucket_of((1, 2), tuple(range(63)), 5).length == 128
    assert bucket_of((), (1,), 5) != bucket_of((), (1,), 5, one_line=False)


def test_tokens_are_drawn_by_their_probabilities_and_unlikely_ones_never() -> None:
    shares = torch.tensor([0.5, 0.3, 0.14, 0.05, 0.01])
    likely = shares * (shares >= MIN_P * shares.max())
    expected = likely / likely.sum()
    num = 4000
    drawn = Counter(
        _draw(shares.log(), 1.0, torch.Generator().manual_seed(seed)) for seed in range(num)
    )
    assert set(drawn) == {0, 1, 2}
    for token, share in enumerate(expected.tolist()):
        assert drawn[token] / num == pytest.approx(share, abs=0.04)
