"""The command `dnd`. Errors are one sentence; exit status 1, 2 for usage, 130 after Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from dnd.cli.console import print_error
from dnd.errors import DndError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    from dnd.cli.app import app

    signal.signal(signal.SIGTERM, _leave)
    try:
        result = app.main(args=argv, prog_name="dnd", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except DndError as error:
        print_error(error.message)
        return 1
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # the reader of our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return result if isinstance(result, int) else 0


def _leave(number: int, frame: Any) -> None:
    """SIGTERM ends a command as an exception does, so that it stops what it has started.

    A second one, as a supervisor and its process group may send it, does not cut that short.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + number)
