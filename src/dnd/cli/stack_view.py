"""How the processes of a stack get ready, shown as it happens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dnd.cli.console import make_table
from dnd.stack import Health, Member

_STYLES = {
    Health.STARTING: "yellow",
    Health.READY: "green",
    Health.SILENT: "red",
    Health.DEAD: "bold red",
}
_MIB = 2**20


class StackView:
    """A table that fills on a terminal; elsewhere a line for each process that got ready.

    Args:
        file: Where it is shown.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._console = Console(file=file, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=5, transient=True)
        self._started_at = time.monotonic()
        self._ready: set[str] = set()

    def __enter__(self) -> StackView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()
        if error is None and self._ready:
            seconds = time.monotonic() - self._started_at
            num = len(self._ready)
            what = "1 process" if num == 1 else f"{num} processes"
            print(f"{what} ready after {seconds:.0f} s", file=self._file)

    def show(self, members: Sequence[Member]) -> None:
        """Shows how the processes are now."""
        for member in members:
            if member.health is Health.READY and member.name not in self._ready:
                self._ready.add(member.name)
                if not self._console.is_terminal:
                    seconds = time.monotonic() - self._started_at
                    print(
                        f"{member.name} ready after {seconds:.1f} s {member.address}".rstrip(),
                        file=self._file,
                    )
        if self._console.is_terminal:
            self._live.update(start_table(members, time.monotonic() - self._started_at))


def start_table(members: Sequence[Member], seconds: float) -> Table:
    """The processes of a stack that is starting."""
    table = make_table(("Process", "State", "Pid", "Address", "MiB"), right=("Pid", "MiB"))
    table.title = f"{seconds:.0f} s"
    table.title_justify = "left"
    for member in members:
        table.add_row(
            Text(member.name),
            health_text(member.health),
            Text(str(member.running.pid)),
            Text(member.address),
            Text(f"{member.memory_bytes / _MIB:.0f}" if member.memory_bytes else ""),
        )
    return table


def status_table(members: Sequence[Member]) -> Table:
    """The processes of a stack with what they have done."""
    numbers = ("Pid", "RPCs", "Items", "Mean batch", "MiB")
    headers = ("Process", "State", "Pid", "Address", *numbers[1:])
    table = make_table(headers, right=numbers)
    for member in members:
        counts = member.counts
        table.add_row(
            Text(member.name),
            health_text(member.health),
            Text(str(member.running.pid)),
            Text(member.address),
            Text(f"{counts.num_rpcs:,}" if counts else ""),
            Text(f"{counts.num_items:,}" if counts and counts.num_items else ""),
            Text(f"{counts.mean_batch:.1f}" if counts and counts.num_batches else ""),
            Text(f"{member.memory_bytes / _MIB:.0f}" if member.memory_bytes else ""),
        )
    return table


def health_text(health: Health) -> Text:
    return Text(health.value, style=_STYLES[health])
