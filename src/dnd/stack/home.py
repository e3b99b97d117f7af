"""The folder of a stack: where its data, logs and running processes are written down."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dnd.errors import BadSetting, FailedPrecondition


@dataclass(frozen=True)
class Running:
    """A process that the stack has started.

    Attributes:
        name: For example "captioner" or "worker-index".
        pid: Its process id.
        created_at_s: When it was started, seconds since 1970: tells it from a later process with
            the same id.
        port: TCP port that the stack chose for it; 0 if it chose one by itself.
    """

    name: str
    pid: int
    created_at_s: float
    port: int = 0


@dataclass(frozen=True)
class State:
    """What run/stack.json says: the configuration that was started, and its processes."""

    config: dict[str, Any]
    processes: tuple[Running, ...]


class Home:
    """A folder that holds one stack.

    Args:
        path: The folder; it is made when something is started in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def database(self) -> str:
        return f"sqlite:///{self.path / 'coordinator.db'}"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def endpoints(self, name: str) -> Path:
        """The file into which a process writes where it listens."""
        return self.run / f"{name}.json"

    def make(self) -> None:
        """Makes the folders.

        Raises:
            BadSetting: They cannot be made here.
        """
        try:
            for folder in (self.path, self.logs, self.run, self.artifacts):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadSetting(
                f"{self.path} cannot be the home of a stack: {error.strerror}. "
                "Name another one with --home or DND_HOME."
            ) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other commands from starting or stopping processes in this home.

        Raises:
            FailedPrecondition: Another command is at it.
        """
        self.make()
        with (self.run / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FailedPrecondition(
                    f"Another dnd command is starting, stopping or using the stack in {self.path}: "
                    "wait for it, or name another home with --home."
                ) from None
            yield

    def read_state(self) -> State:
        """What was started here last; nothing if nothing was."""
        try:
            data = json.loads((self.run / "stack.json").read_text())
            return State(data["config"], tuple(Running(**one) for one in data["processes"]))
        except FileNotFoundError:
            return State({}, ())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadSetting(
                f"{self.run / 'stack.json'} is damaged ({type(error).__name__}): end the processes "
                "of this stack by hand and remove the file."
            ) from None

    def write_state(self, config: dict[str, Any], processes: Sequence[Running]) -> None:
        """Writes down what runs here, all at once."""
        draft = self.run / f".stack.{os.getpid()}"
        data = {"config": config, "processes": [asdict(one) for one in processes]}
        draft.write_text(json.dumps(data, indent=1))
        draft.replace(self.run / "stack.json")

    def read_endpoints(self, name: str) -> dict[str, Any]:
        """Where a process listens ("pid", "address", "metrics", "web"); empty until it does."""
        try:
            data = json.loads(self.endpoints(name).read_text())
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def log_tail(self, name: str, num_lines: int = 15) -> str:
        """The last lines of a process's log."""
        try:
            with self.log(name).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 100_000))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return "(it wrote no log)"
        return "\n".join(lines[-num_lines:]) or "(its log is empty)"


def default_home() -> Path:
    """DND_HOME, or ~/.dnd."""
    return Path(os.environ.get("DND_HOME") or "~/.dnd").expanduser()
