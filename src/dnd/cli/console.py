"""What the command writes: tables and sentences on stdout, errors on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dnd.report.scale import format_bytes as format_bytes
from dnd.report.scale import format_duration as format_duration

NARROW = 100


def console() -> Console:
    """A console on the stdout of this moment, wide enough for tables where it is no terminal."""
    return Console(
        file=sys.stdout, highlight=False, soft_wrap=False, width=None if is_terminal() else 160
    )


def is_terminal() -> bool:
    """Whether a person may be looking at stdout."""
    return sys.stdout.isatty()


def can_ask() -> bool:
    """Whether there is a person who can answer a question."""
    return sys.stdin.isatty()


def say(text: str = "") -> None:
    """One line of plain text."""
    click.echo(text)


def warn(text: str) -> None:
    """One line on stderr that does not end the command."""
    click.echo(click.style("dnd: ", fg="yellow") + clean(text), err=True)


def print_error(text: str) -> None:
    """The sentence that a failed command ends with."""
    click.echo(click.style("dnd: ", fg="red", bold=True) + clean(text), err=True)


def clean(text: str) -> str:
    """Text from models and servers, without what would steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def print_table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> None:
    """A table of plain text; columns in `right` hold numbers."""
    table = make_table(headers, right=right)
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    console().print(table)


def make_table(headers: Sequence[str], *, right: Sequence[str] = ()) -> Table:
    """An empty table in the style of all tables of the command."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for header in headers:
        table.add_column(
            header,
            justify="right" if header in right else "left",
            overflow="fold",
            no_wrap=header in right,
        )
    return table


def cell(value: object) -> Text:
    """A table's cell; never read as markup."""
    if isinstance(value, Text):
        return value
    if value is None:
        return Text("–", style="dim")
    if isinstance(value, float):
        return Text(f"{value:.2f}")
    return Text(clean(str(value)))
