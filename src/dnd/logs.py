"""Log lines of a process: text for people, or JSON with the job, the units and the trace.

No secret gets into a line: those that the process knows are struck out, and so is what looks like
one. It is the last line of defence; nothing is to log them in the first place.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from dnd import telemetry

FORMATS = ("text", "json")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
STRUCK_OUT = "[secret]"

_SHORTEST_SECRET = 6
"""Shorter ones would be found inside of common words."""
_SECRET_VARIABLES = re.compile(r"(ACCESS_KEY|API_KEY|TOKEN|PASSWORD|SECRET|_HEADERS)$")
_PASSWORD_OF_URL = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_LIKE_SECRETS = re.compile(
    r"(?<=Bearer )\S+"
    r"|\bdnd_[A-Za-z0-9_-]{43}"  # `dnd.tokens`
    r"|\bsk-[A-Za-z0-9_-]{16,}"
)

_fields: ContextVar[Mapping[str, Any]] = ContextVar("fields", default={})  # noqa: B039
_hidden: set[str] = set()


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Lines of the block carry these fields, as long as they are JSON; empty ones are left out."""
    before = _fields.get()
    _fields.set({**before, **{name: value for name, value in fields.items() if value}})
    try:
        yield
    finally:  # perhaps in another context, where a generator that nobody reads is closed
        _fields.set(before)


def hide(secret: str) -> None:
    """Strikes a secret out of all lines from now on."""
    if len(secret) >= _SHORTEST_SECRET:
        _hidden.add(secret)


def set_up(process: str, level: str, style: str) -> None:
    """Sends the log lines of this process to stderr.

    Args:
        process: Its name in the lines.
        level: One of LEVELS; less important lines are left out.
        style: "text" or "json", one object in a line.
    """
    for name, value in os.environ.items():
        _hide_variable(name, value)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process) if style == "json" else TextLines(process))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if style == "json":
        logging.captureWarnings(True)
        sys.excepthook = _log_exception
        threading.excepthook = lambda given: _log_exception(
            given.exc_type, given.exc_value, given.exc_traceback
        )


def say_why(process: str, message: str) -> None:
    """Says why a process ends, though its settings may not have been read."""
    if os.environ.get("DND_LOG_FORMAT") == "json":
        set_up(process, "INFO", "json")
        logging.getLogger("dnd").critical("%s", message)
    else:
        print(strike_out(f"{process}: {message}"), file=sys.stderr)


def strike_out(text: str) -> str:
    """`text` without secrets."""
    for secret in sorted(_hidden, key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(secret, STRUCK_OUT)
    return _LIKE_SECRETS.sub(STRUCK_OUT, _PASSWORD_OF_URL.sub(rf"\1{STRUCK_OUT}@", text))


class TextLines(logging.Formatter):
    """Lines for people: time, process, level, message."""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s {process} %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return strike_out(super().format(record))


class JsonLines(logging.Formatter):
    """One JSON object in a line, with the fields of `bound` and the trace that is open."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._process,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields.get(),
        }
        parent = telemetry.traceparent()
        if parent:
            _, line["trace"], line["span"], _ = parent.split("-")
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(_clean(line), ensure_ascii=False, default=str)


def _clean(value: Any) -> Any:
    """A line's values without secrets, before they are escaped."""
    if isinstance(value, str):
        return strike_out(value)
    if isinstance(value, dict):
        return {name: _clean(one) for name, one in value.items()}
    return value


def _hide_variable(name: str, value: str) -> None:
    if _SECRET_VARIABLES.search(name):
        hide(value)
    elif "://" in value:
        try:
            password = urlsplit(value).password or ""
        except ValueError:
            return
        hide(password)
        hide(unquote(password))


def _log_exception(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    logging.getLogger("dnd").critical("%s", kind.__name__, exc_info=(kind, error, trace))  # type: ignore[arg-type]
