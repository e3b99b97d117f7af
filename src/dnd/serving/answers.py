"""From what a language model said to labels: cleaned, or dropped with a reason (METHOD)."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TypeAlias

MAX_WORDS = 5
MAX_WORD_CHARACTERS = 30


@dataclass(frozen=True)
class Dropped:
    """What was said instead of a label, and why it is none."""

    text: str
    reason: str


Label: TypeAlias = str | Dropped

_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL | re.IGNORECASE)
_BULLET = re.compile(r"^\s*(?:[-*•>#]+|\(?\d{1,2}[.):])\s+")
_POLITE = re.compile(
    r"^(?:(?:sure|ok|okay|certainly|of course|the (?:common |best |short )*"
    r"(?:label|answer|concept) (?:is|would be)|they are all|it is)\b[\s,.!:]*)+",
    re.IGNORECASE,
)
_QUOTES = re.compile(r"[\"“”„«»`*_]|(?<!\w)['‘’]|['‘’](?!\w)")
_REFUSAL = re.compile(
    r"\b(?:sorry|cannot|can't|can not|unable|as an ai|language model|i (?:do not|don't|am not)|"
    r"i'm (?:not|sorry)|not possible|not sure|nothing in common|no common)\b"
    r"|^(?:none|nothing|n/?a|unknown|unclear|various|miscellaneous|other)$"
)
_ECHO = re.compile(
    r"\bcaptions?\b|\bin common\b|\bmost of the\b|\bone to five\b"
    r"|^(?:the |a |an |one )?(?:short |common )*(?:labels?|answers?|concepts?|words?)$"
)
_ENDS = "a an the and or of with in on at by for to from as is are that which its their"
_LOOSE_ENDS = frozenset(_ENDS.split())


def parse_label(answer: str, *, finished: bool, instructions: str) -> Label:
    """The one label in an answer: its first line with anything in it, up to a comma.

    Args:
        answer: What the model said.
        finished: Whether it ended by itself.
        instructions: What it was told; repeating that is no answer.
    """
    line, ended = _first_line(answer)
    return _judge(line.split(",")[0].split(";")[0], finished or ended or "," in line, instructions)


def parse_labels(answer: str, *, finished: bool, instructions: str) -> list[Label]:
    """All labels in an answer, one a line; one line alone is split at its commas."""
    lines = [line for raw in _THOUGHTS.sub(" ", answer).splitlines() if (line := _strip_line(raw))]
    if len(lines) == 1:
        lines = [part.strip() for part in re.split(r"[,;]", lines[0]) if part.strip()]
    last = len(lines) - 1
    return [
        _judge(line, finished or place < last, instructions) for place, line in enumerate(lines)
    ]


def listed_labels(answer: str) -> list[str]:
    """The things that a one-line answer lists with commas."""
    line, _ = _first_line(answer)
    return [part.strip() for part in line.split(",") if part.strip()]


def parse_caption(answer: str) -> str:
    """The simplified caption in an answer; empty if there is none."""
    line, _ = _first_line(answer)
    line = line.rstrip(" .")
    refused = _REFUSAL.search(line.lower()) is not None
    return "" if refused or not any(c.isalpha() for c in line) else line


def clean_text(text: str) -> str:
    """`text` in lower case on one line, without quotation marks and final punctuation."""
    kept = (" " if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)
    plain = _QUOTES.sub("", "".join(kept)).lower()
    return " ".join(plain.split()).strip(" .,;:!?-–—/|()[]{}<>=~")


def _first_line(answer: str) -> tuple[str, bool]:
    """The first line that says something, and whether another line begins after it."""
    rest = _THOUGHTS.sub(" ", answer)
    while rest:
        raw, newline, rest = rest.partition("\n")
        if line := _strip_line(raw):
            return line, bool(newline)
    return "", True


def _strip_line(line: str) -> str:
    """A line without bullet, courtesies and whatever stands before a colon."""
    line = _POLITE.sub("", _BULLET.sub("", line.strip()))
    return line.partition(":")[2].strip() if ":" in line else line.strip()


def _judge(text: str, finished: bool, instructions: str) -> Label:
    label = clean_text(re.split(r"[.!?]\s+(?=\S)", text.strip())[0])
    words = _once(label.split())
    if _REFUSAL.search(label):
        return Dropped(label[:80], "the model refused or found nothing")
    if _ECHO.search(label) or (len(words) > 2 and label in clean_text(instructions)):
        return Dropped(label[:80], "it repeats the instructions")
    if not finished:
        return Dropped(label[:80], "it was cut off")
    while words and words[-1] in _LOOSE_ENDS:
        words.pop()
    if not any(c.isalpha() for word in words for c in word) or set(words) <= _LOOSE_ENDS:
        return Dropped(label[:80], "there is no word in it" if label else "it is empty")
    if len(words) > MAX_WORDS:
        return Dropped(label[:80], f"it has more than {MAX_WORDS} words")
    if max(map(len, words)) > MAX_WORD_CHARACTERS:
        return Dropped(label[:80], "it is no word")
    return " ".join(words)


def _once(words: list[str]) -> list[str]:
    """Words without those that repeat the one before."""
    return [word for place, word in enumerate(words) if not place or word != words[place - 1]]
