"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import click

from dnd.cli.specs import make_spec
from dnd.jobs import Limits, Method
from dnd.profiles import Similarity

F = TypeVar("F", bound=Callable[..., Any])


def home_option(command: F) -> F:
    """--home: the folder of the local stack."""
    return click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="DND_HOME",
        default=Path("~/.dnd"),
        help="Folder of the local stack.  [default: DND_HOME, or ~/.dnd]",
    )(command)


def server_option(command: F) -> F:
    """--server, and --home for where to look without it."""
    return click.option(
        "--server",
        metavar="HOST:PORT",
        envvar="DND_SERVER",
        default="",
        help="Coordinator to talk to.  [default: DND_SERVER, or the stack that runs in the home]",
    )(home_option(command))


def job_argument(command: F) -> F:
    """JOB: an id; the newest job without it."""
    return click.argument("job", default="", required=False, metavar="[JOB]")(command)


_SPEC_OPTIONS = frozenset(signature(make_spec).parameters)


def spec_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options for what is to be labelled, with what, given to the command as `spec`."""

    @functools.wraps(command)
    def with_spec(*args: Any, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name) for name in _SPEC_OPTIONS & kwargs.keys()}
        command(*args, spec=make_spec(**given), **kwargs)

    for option in reversed(
        [
            click.argument("model", required=False, default=""),
            click.option(
                "--layer",
                "layers",
                multiple=True,
                metavar="PATH",
                help="Layer to label, as `dnd layers` lists it; repeatable.",
            ),
            click.option(
                "--units",
                metavar="0-15,40",
                default="",
                help="Units of each layer.  [default: all]",
            ),
            click.option(
                "--probe",
                metavar="NAME",
                default="",
                help="Probe set: a name, several joined by +, or a folder of images.",
            ),
            click.option(
                "--profile",
                metavar="NAME",
                default="",
                help="Settings of the method: paper, default or starter.  [default: default]",
            ),
            click.option(
                "--method",
                type=click.Choice([method.value for method in Method]),
                default=None,
                help="dnd describes, clip-dissect chooses from a concept set, cascade does that "
                "and describes where it is not certain.  [default: dnd]",
            ),
            click.option(
                "--concepts",
                metavar="SET",
                default="",
                help="Concept set: a file with one concept in each line, common-english, or "
                "classes for the model's own.  [default: common-english; none for dnd]",
            ),
            click.option(
                "--similarity",
                type=click.Choice([one.value for one in Similarity]),
                default=None,
                help="How concepts are compared with units.  [default: soft_wpmi]",
            ),
            click.option(
                "--set",
                "settings",
                multiple=True,
                metavar="KEY=VALUE",
                help="One setting other than the profile's, for example synthesis.num_steps=8; "
                "repeatable.",
            ),
            click.option(
                "--seed",
                type=int,
                metavar="NUMBER",
                default=None,
                help="Seed of shuffles and drawings.  [default: 0]",
            ),
            click.option(
                "--spec",
                "spec_file",
                type=click.Path(path_type=Path, dir_okay=False),
                default=None,
                help="YAML file with model, layers, units, probe, profile, method, concepts, "
                "settings, seed and priority; options go before it.",
            ),
            click.option(
                "--private",
                is_flag=True,
                help="Start a stack for this, even if one is running.",
            ),
            click.option(
                "--config",
                type=click.Path(path_type=Path, dir_okay=False),
                default=None,
                help="Configuration of a stack that is started for this, as for `dnd up`.",
            ),
        ]
    ):
        with_spec = option(with_spec)
    return server_option(with_spec)


def limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options for what a job may use, given to the command as `limits`."""

    @functools.wraps(command)
    def with_limits(
        *args: Any,
        max_tokens: int | None,
        max_dollars: float | None,
        max_images: int | None,
        max_units: int | None,
        **kwargs: Any,
    ) -> None:
        limits = Limits(max_tokens or 0, max_dollars or 0.0, max_images or 0, max_units or 0)
        command(*args, limits=limits, **kwargs)

    for name, kind, what in reversed(
        (
            ("tokens", click.IntRange(1), "this many tokens of the language model are used"),
            ("dollars", click.FloatRange(0, min_open=True), "its tokens have cost that much"),
            ("images", click.IntRange(1), "this many images are drawn"),
            ("units", click.IntRange(1), "this many units have ended"),
        )
    ):
        with_limits = click.option(
            f"--max-{name}",
            type=kind,
            metavar="NUMBER",
            default=None,
            help=f"Pause the job when {what}.",
        )(with_limits)
    return with_limits
