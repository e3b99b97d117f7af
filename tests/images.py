"""The instructions of our Dockerfiles."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGES = ("activations", "captioner", "summarizer", "synthesizer", "scorer", "coordinator")


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continuation lines joined."""

    word: str
    rest: str

    def words(self) -> list[str]:
        """The words after the instruction; those of a JSON list."""
        found: list[str] = json.loads(self.rest) if self.rest.startswith("[") else self.rest.split()
        return found


@dataclass
class Stage:
    """From one FROM to the next."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[Instruction]:
        return [one for one in self.instructions if one.word == word]

    def one(self, word: str) -> Instruction:
        (found,) = self.all(word)
        return found


@dataclass(frozen=True)
class Dockerfile:
    """What stands before the first FROM, and the stages; the last one is the image."""

    arguments: dict[str, str]
    stages: list[Stage]

    @property
    def image(self) -> Stage:
        return self.stages[-1]

    def stage(self, name: str) -> Stage:
        (found,) = [one for one in self.stages if one.name == name]
        return found


def read_dockerfile(image: str) -> Dockerfile:
    """The Dockerfile of an image of ours."""
    text = (ROOT / "services" / image / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        rest = " ".join(rest.split())
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
        elif not stages:
            assert word == "ARG", line
            name, _, value = rest.partition("=")
            arguments[name] = value
        else:
            stages[-1].instructions.append(Instruction(word, rest))
    return Dockerfile(arguments, stages)
