"""dnd up, status, down, backup."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dnd.cli.console import console, format_bytes, is_terminal, say
from dnd.cli.options import home_option
from dnd.cli.stack_view import StackView, status_table
from dnd.errors import NotFound, Unavailable
from dnd.stack import (
    Health,
    Home,
    back_up,
    dead_members,
    default_yaml,
    describe_death,
    inspect,
    load_config,
    repair,
    start,
    stop,
    web_address,
)


@click.command()
@home_option
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="YAML file with what differs from the built-in configuration.",
)
@click.option(
    "--print-config", is_flag=True, help="Print the built-in configuration, with comments."
)
@click.option("--repair", "mend", is_flag=True, help="Start again what has died; the rest goes on.")
def up(home: Path, config: Path | None, print_config: bool, mend: bool) -> None:
    """Start the local stack: broker, services, coordinator and workers.

    Everything runs as processes of this machine, on loopback, until `dnd down`. One stack runs in
    a home; another one takes another --home.
    """
    if print_config:
        click.echo(default_yaml(), nl=False)
        return
    if mend and config:
        raise click.UsageError(
            "--repair starts again what has died, as it was started, and takes no --config: to "
            "change the configuration, `dnd down` first."
        )
    place = Home(home)
    settings = load_config(config)
    with place.lock():
        try:
            with StackView(sys.stdout) as view:
                if mend:
                    names = repair(place, view.show)
                else:
                    start(place, settings, view.show)
        except KeyboardInterrupt:
            say("Stopped what had been started.")
            raise
    if mend:
        say(f"Started again: {', '.join(names)}." if names else "Everything was running.")
        return
    if is_terminal():
        console().print(status_table(inspect(place, with_counts=False)))
    say(f"The stack runs in {place.path}; logs are in {place.logs}.")
    say(f"Explorer and REST: {web_address(place)}")
    if settings.coordinator.get("auth", "off") == "off":
        say("Authentication is off: everything listens on loopback only.")
    say("Next: `dnd label MODEL --layer PATH --probe NAME`; `dnd status` and `dnd down` for it.")


@click.command()
@home_option
def status(home: Path) -> None:
    """Show the processes of the local stack, and what they have done."""
    place = Home(home)
    members = inspect(place)
    dead = [member.running for member in members if member.health is Health.DEAD]
    if not members:
        raise NotFound(f"No stack is running in {place.path}: start one with `dnd up`.")
    if len(dead) == len(members):
        raise NotFound(
            f"No stack is running in {place.path}: all {len(dead)} processes of the last one have "
            f"ended without `dnd down` (their logs are in {place.logs}). Start it with `dnd up`; "
            "its jobs then go on."
        )
    console().print(status_table(members))
    if address := web_address(place):
        say(f"Explorer and REST: {address}")
    if dead:
        raise Unavailable(
            describe_death(place, dead) + "\nStart again what has died with `dnd up --repair`."
        )


@click.command()
@home_option
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=30.0,
    show_default=True,
    help="Time for a process to finish in before it is killed.",
)
def down(home: Path, timeout_s: float) -> None:
    """Stop the local stack. Jobs that run go on at the next `dnd up`."""
    place = Home(home)
    if not place.path.is_dir() or not place.read_state().processes:
        say(f"No stack is running in {place.path}.")
        return
    with place.lock():
        num = len(place.read_state().processes) - len(dead_members(place))
        killed = stop(place, timeout_s)
    if not num:
        say(f"No stack was running in {place.path} any more; its traces are removed.")
        return
    say(f"Stopped {num} processes." + (f" Killed: {', '.join(killed)}." if killed else ""))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@home_option
def backup(folder: Path, home: Path) -> None:
    """Copy the local stack's record and artifacts to FOLDER while it runs.

    The copy is a home: `dnd up --home FOLDER` goes on with the jobs from where they were. A copy
    that is named again is brought up to date; only new artifacts are copied then. Call neither
    `dnd delete` nor `dnd gc` meanwhile.
    """
    made = back_up(Home(home), folder)
    say(
        f"{folder} has the record and {made.num_artifacts:,} artifacts "
        f"({format_bytes(made.num_bytes)}), {made.num_new:,} of them new. "
        f"To go on from it: `dnd up --home {folder}`."
    )
