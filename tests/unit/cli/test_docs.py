"""docs/cli.md says what the command says."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from unit.cli.conftest import Command

from dnd.cli.app import SECTIONS, app

ROOT = Path(__file__).parents[3]


def test_the_page_of_commands_is_current() -> None:
    render = runpy.run_path(str(ROOT / "scripts" / "generate_docs.py"))["render"]
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == render(), "run `make docs`"


def test_lists_each_command_once() -> None:
    listed = [command.name for commands in SECTIONS.values() for command in commands]
    assert sorted(map(str, listed)) == sorted(app.commands)


def test_every_option_says_what_it_is_for() -> None:
    for command in app.commands.values():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert getattr(parameter, "help", None), f"{command.name}: {parameter.opts}"


def test_suggests_a_command_when_it_is_unknown(dnd: Command) -> None:
    outcome = dnd("lable")
    assert outcome.status == 2
    assert "No such command 'lable'" in outcome.err
    assert "label" in outcome.err.replace("lable", "")


def test_prints_help_when_called_without_a_command(dnd: Command) -> None:
    outcome = dnd()
    assert outcome.status == 2
    assert "Commands work on the stack" in outcome.out + outcome.err


# cli.md is generated, and its help texts are prose.
PAGES = sorted({ROOT / "README.md", *(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / "cli.md"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_a_page_shows_exist_with_their_options(page: Path) -> None:
    for line in commands_in(page.read_text(encoding="utf-8")):
        command: click.Command = app
        words = line.split()[1:]
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"{page.name}: {line}"
            command = command.commands[words.pop(0)]
        known = {
            "-h",
            "--help",
            *(one for p in command.params for one in (*p.opts, *p.secondary_opts)),
        }
        for word in words:
            option = word.partition("=")[0].rstrip(")],.;")
            assert not option.startswith("-") or option in known, f"{page.name}: {line}: {option}"


def commands_in(text: str) -> Iterator[str]:
    """Calls of `dnd` in blocks of code and in the text, up to a pipe, comment or redirection."""
    fence = re.compile(r"^```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
    for block in fence.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|[;|<>]", line.partition("#")[0]):
                yield from re.findall(r"^\s*(?:\$ )?(dnd .*)", part)
    for span in re.findall(r"`(dnd [^`]+)`", fence.sub("", text)):
        yield re.split(r"[;|<>#]", " ".join(span.split()))[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    folders = "benchmarks|deploy|docs|examples|packs|protos|scripts|services|src|tests"
    for path in re.findall(rf"`((?:{folders})/[\w./*-]+)`", page.read_text(encoding="utf-8")):
        assert any(ROOT.glob(path)), f"{page.name}: {path}"
