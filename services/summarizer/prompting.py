"""Prompts are text files; a folder of them is a prompt set (prompts/README.md)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from dnd.errors import BadSetting, UnknownName, suggest
from dnd.keys import digest_of
from dnd_services.summarizer.llm import Message, Role

BUILT_IN = Path(__file__).parent / "prompts"

PLACEHOLDERS: Mapping[str, frozenset[str]] = {
    "summary": frozenset({"captions"}),
    "summary_contrast": frozenset({"captions", "contrast"}),
    "several": frozenset({"captions", "num"}),
    "several_contrast": frozenset({"captions", "contrast", "num"}),
    "simplify": frozenset({"caption"}),
    "merge": frozenset({"labels"}),
}
"""The kinds of calls, and what a prompt of each must hold."""

MAX_CAPTION_CHARACTERS = 300
MAX_ANSWER_TOKENS = 4096

_TURN = re.compile(r"^\[(system|user|assistant)\]\s*$", re.MULTILINE)
_LIMIT = re.compile(r"max_tokens:\s*(\d+)\s*\n")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Prompt:
    """One kind of call.

    Attributes:
        turns: Instructions, worked examples, and last what is asked, with placeholders.
        max_tokens: Tokens of an answer at most.
    """

    turns: tuple[Message, ...]
    max_tokens: int

    @property
    def num_shared(self) -> int:
        """Leading turns that are the same in every call."""
        return len(self.turns) - 1

    @property
    def instructions(self) -> str:
        """What the model is told, worked examples left out."""
        return "\n".join(turn.content for turn in self.turns if turn.role == "system")

    def fill(self, values: Mapping[str, str]) -> tuple[Message, ...]:
        """The turns of one call."""
        last = self.turns[-1]
        content = _PLACEHOLDER.sub(lambda match: values[match[1]], last.content)
        return (*self.turns[:-1], Message(last.role, content))


@dataclass(frozen=True)
class PromptSet:
    """All prompts of one name.

    Attributes:
        name: Name of the folder.
        prompts: By kind of call.
        digest: SHA-256 of all turns and limits.
    """

    name: str
    prompts: Mapping[str, Prompt]
    digest: str

    def get(self, kind: str) -> Prompt:
        """The prompt of a kind of call. Raises BadSetting if the set has none."""
        if kind not in self.prompts:
            raise BadSetting(
                f"Prompt set {self.name!r} has no {kind} prompt, which these settings need: add "
                f"{kind}.txt to it, or change propose.prompt_set, propose.simplify, "
                "propose.one_call or propose.contrast."
            )
        return self.prompts[kind]


@dataclass(frozen=True)
class PromptSets:
    """The prompt sets of a server, by name."""

    sets: Mapping[str, PromptSet]

    def get(self, name: str) -> PromptSet:
        """The set `name`. Raises UnknownName."""
        if name not in self.sets:
            raise UnknownName(suggest(name, sorted(self.sets), what="prompt set"))
        return self.sets[name]

    @property
    def digest(self) -> str:
        """SHA-256 of all sets."""
        return digest_of({name: one.digest for name, one in self.sets.items()})


def load_prompt_sets(more: Path | None = None) -> PromptSets:
    """The built-in prompt sets, and those in the folder `more`.

    Raises:
        BadSetting: A file is no prompt, or a set of that name is built in.
    """
    sets: dict[str, PromptSet] = {}
    if more is not None and not more.is_dir():
        raise BadSetting(f"DND_PROMPTS = {str(more)!r}: there is no such folder.")
    for base in (BUILT_IN, *([more] if more else [])):
        for folder in sorted(path for path in base.iterdir() if path.is_dir()):
            if folder.name in sets:
                raise BadSetting(
                    f"{folder}: a prompt set named {folder.name!r} is built in: rename the folder."
                )
            if any(folder.glob("*.txt")):
                sets[folder.name] = _load_set(folder)
    return PromptSets(sets)


def _load_set(folder: Path) -> PromptSet:
    prompts = {}
    for path in sorted(folder.glob("*.txt")):
        if path.stem not in PLACEHOLDERS:
            raise BadSetting(f"{path}: {suggest(path.stem, list(PLACEHOLDERS), what='prompt')}")
        prompts[path.stem] = _parse_prompt(path)
    return PromptSet(folder.name, prompts, digest_of(prompts))


def _parse_prompt(path: Path) -> Prompt:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"{path} cannot be read as UTF-8 text: {error}") from None
    limit = _LIMIT.match(text)
    if limit is None or not 1 <= int(limit[1]) <= MAX_ANSWER_TOKENS:
        raise BadSetting(
            f"{path}: the first line must be 'max_tokens: N', N from 1 to {MAX_ANSWER_TOKENS}."
        )
    head, *parts = _TURN.split(text[limit.end() :])
    turns = tuple(
        Message(cast(Role, role), content.strip())
        for role, content in zip(parts[::2], parts[1::2], strict=True)
    )
    roles = [turn.role for turn in turns]
    talk = [role for role in roles if role != "system"]
    if head.strip() or "system" in roles[1:] or not talk:
        raise BadSetting(f"{path}: expected turns below [system] (first), [user], [assistant].")
    if talk != ["user", "assistant"] * (len(talk) // 2) + ["user"]:
        raise BadSetting(f"{path}: [user] and [assistant] must alternate, [user] first and last.")
    expected = PLACEHOLDERS[path.stem]
    found = set(_PLACEHOLDER.findall(turns[-1].content))
    if found != expected:
        raise BadSetting(
            f"{path}: the last turn holds {_braced(found)}: expected {_braced(expected)}."
        )
    return Prompt(turns, int(limit[1]))


def _braced(names: set[str] | frozenset[str]) -> str:
    return " and ".join(f"{{{name}}}" for name in sorted(names)) or "no placeholder"


def number_lines(captions: Sequence[str]) -> str:
    """Captions as numbered lines."""
    return "\n".join(f"{place}. {caption}" for place, caption in enumerate(captions, 1))


def tidy_caption(text: str) -> str:
    """A caption as data for a prompt: one line, no control characters, not too long."""
    kept = (" " if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)
    return " ".join("".join(kept).split())[:MAX_CAPTION_CHARACTERS]
