"""The idle fakes as processes of their own.

    python -m benchmarks.scaling.serve_fakes FOLDER FILE [--batch-s S] [--unlike] [--error-rate P]

Writes where they listen to FILE, as JSON, and serves until it is ended.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from dnd.clients import SERVICE_NAMES
from dnd.errors import DndError, Internal, Overloaded, Unavailable
from dnd.testing.fakes import start_fakes
from dnd.testing.idle import IdleFakes


def fail_some(rate: float) -> Callable[[str], DndError | None]:
    """Calls fail at random, in one of the ways that may pass."""
    errors = (Unavailable("Not now."), Overloaded("Full.", retry_after_s=0.1), Internal("Once."))
    return lambda method: random.choice(errors) if random.random() < rate else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling.serve_fakes")
    parser.add_argument("folder", type=Path, help="the artifact store")
    parser.add_argument("file", type=Path, help="where to write the addresses")
    parser.add_argument("--batch-s", type=float, default=0.0, help="device time of 8 drawings")
    parser.add_argument("--unlike", action="store_true", help="units share no concept")
    parser.add_argument("--error-rate", type=float, default=0.0, help="share of calls that fail")
    asked = parser.parse_args()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with start_fakes(asked.folder, IdleFakes) as fakes:
        fakes.synthesizer.batch_s = asked.batch_s
        fakes.summarizer.unlike = asked.unlike
        for name in SERVICE_NAMES if asked.error_rate else ():
            getattr(fakes, name).faults.call = fail_some(asked.error_rate)
        draft = asked.file.with_suffix(".draft")
        draft.write_text(json.dumps(fakes.targets))
        draft.replace(asked.file)
        ended.wait()


if __name__ == "__main__":
    main()
