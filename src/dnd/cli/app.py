"""All commands of `dnd`."""

from __future__ import annotations

import click

from dnd.cli import demo, job_commands, label_commands, stack_commands


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="describe-and-dissect")
def app() -> None:
    """Describe every unit of a vision network in plain language.

    A running stack is used if there is one (`dnd up`, or --server); otherwise `dnd label` starts
    one for the job and stops it again.
    """


for command in (
    label_commands.layers,
    label_commands.label,
    label_commands.estimate,
    label_commands.profiles,
    job_commands.jobs,
    job_commands.watch,
    job_commands.labels,
    job_commands.export,
    job_commands.pause,
    job_commands.resume,
    job_commands.cancel,
    job_commands.retry,
    stack_commands.up,
    stack_commands.status,
    stack_commands.down,
    demo.demo,
):
    app.add_command(command)
