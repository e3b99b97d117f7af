"""The pool of a unit's candidate concepts: who proposed each, no repeats, not too many (METHOD)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dnd.profiles import ProposeSettings
from dnd.serving.answers import Dropped, Label, clean_text
from dnd.types import Candidate, CandidateOrigin
from dnd_services.summarizer.phrases import (
    common_phrases,
    drop_article,
    leading_phrases,
    phrase_key,
)

_PATTERN_WORDS = frozenset({"design", "designs", "graphic", "graphics"})


@dataclass(frozen=True)
class Pool:
    """Candidates of a unit, in first-seen order, and what did not become one."""

    candidates: tuple[Candidate, ...]
    dropped: tuple[Dropped, ...]

    @property
    def has_summary(self) -> bool:
        return any(one.origin is CandidateOrigin.SUMMARY for one in self.candidates)


def build_pool(
    labels: Sequence[Label],
    captions: Sequence[str],
    given: Sequence[Candidate],
    settings: ProposeSettings,
) -> Pool:
    """Summaries, each with its variant; the caller's own candidates; captions; common phrases.

    A unit that one thing alone excites may share nothing between its captions: the first captions
    stand for it. Phrases come last, as they say least that the summaries do not.

    Args:
        labels: What the language model's answers came to, in the order of the calls.
        captions: The unit's captions, highest activation first.
        given: Candidates of other origin.
        settings: Which of these are wanted, and how many candidates at most.
    """
    dropped = [label for label in labels if isinstance(label, Dropped)]
    kept: dict[tuple[str, ...], Candidate] = {}
    for candidate in _in_order(labels, captions, given, settings):
        merged = settings.merge_near_duplicates
        text = drop_article(candidate.text) if merged else candidate.text
        key = phrase_key(text) if merged else (text,)
        if key in kept:
            dropped.append(Dropped(candidate.text, f"it repeats {kept[key].text!r}"))
        elif len(kept) == settings.max_candidates:
            dropped.append(Dropped(candidate.text, "the pool is full"))
        else:
            kept[key] = Candidate(text, candidate.origin)
    return Pool(tuple(kept.values()), tuple(dropped))


def _in_order(
    labels: Iterable[Label],
    captions: Sequence[str],
    given: Iterable[Candidate],
    settings: ProposeSettings,
) -> Iterator[Candidate]:
    for label in labels:
        if isinstance(label, Dropped):
            continue
        yield Candidate(label, CandidateOrigin.SUMMARY)
        if settings.add_background and label.split()[-1] in _PATTERN_WORDS:
            yield Candidate(f"{label} background", CandidateOrigin.BACKGROUND)
    for one in given:
        if text := clean_text(one.text):
            yield Candidate(text, one.origin)
    for caption in leading_phrases(captions, settings.num_captions):
        yield Candidate(caption, CandidateOrigin.CAPTION)
    for phrase in common_phrases(captions, settings.num_phrases):
        yield Candidate(phrase, CandidateOrigin.CAPTION_PHRASE)
