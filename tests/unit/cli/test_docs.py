"""docs/cli.md says what the command says."""

from __future__ import annotations

import runpy
from pathlib import Path

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
