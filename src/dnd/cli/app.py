"""All commands of `dnd`, in the order in which one needs them."""

from __future__ import annotations

import click

from dnd.cli import (
    cluster_commands,
    demo,
    evaluate_commands,
    job_commands,
    label_commands,
    search_commands,
    stack_commands,
    token_commands,
    try_command,
)
from dnd.version import VERSION

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "First look": (demo.demo,),
    "Label units": (
        label_commands.targets,
        label_commands.layers,
        label_commands.profiles,
        label_commands.estimate,
        label_commands.label,
    ),
    "Jobs and results": (
        job_commands.jobs,
        job_commands.watch,
        job_commands.labels,
        search_commands.search,
        search_commands.diff,
        try_command.try_,
        job_commands.export,
        job_commands.pause,
        job_commands.resume,
        job_commands.cancel,
        job_commands.retry,
        job_commands.delete,
        job_commands.gc,
    ),
    "Judge labels": (
        evaluate_commands.evaluate,
        evaluate_commands.import_labels,
    ),
    "The stack on this machine": (
        stack_commands.up,
        stack_commands.status,
        stack_commands.down,
        stack_commands.backup,
        token_commands.tokens,
    ),
    "A deployment on Kubernetes": (cluster_commands.cluster,),
}


class _Sections(click.Group):
    """A group whose help lists its commands under headings, not by the alphabet."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(name) for name in self.commands)
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (f"{one.name:<{width}}", one.get_short_help_str(limit=100))
                        for one in commands
                    ]
                )


@click.group(
    cls=_Sections,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(VERSION)
def app() -> None:
    """Describe every unit of a vision network in plain language.

    Commands work on the stack that `dnd up` has started, or on the coordinator that --server names.
    Where there is none, `dnd label` starts a stack for the job and stops it again. Commands that
    need a JOB take the newest one if none is named.

    \b
        dnd demo                        48 units with models that come with the project
        dnd layers MODEL                what can be labelled
        dnd label MODEL --layer PATH --units 0-15 --probe NAME
    """


for _commands in SECTIONS.values():
    for _command in _commands:
        app.add_command(_command)
