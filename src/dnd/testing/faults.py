"""Faults of a fake service, switched while it runs, and what it was asked."""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc

from dnd.errors import CODES, DndError
from dnd.serving.interceptor import trailers_of


@dataclass
class Faults:
    """How a fake service misbehaves. All attributes may be set at any time.

    Attributes:
        latency_s: Every call takes that long, seconds.
        call: Given a method's name, the error of the whole call, or None.
        item: Given an item (an image, a prompt, a unit, a set's key), its error, or None.
        num_calls: Calls by method.
        num_items: How often each item was asked for, by (method, item).
    """

    latency_s: float = 0.0
    call: Callable[[str], DndError | None] | None = None
    item: Callable[[Any], DndError | None] | None = None
    num_calls: Counter[str] = field(default_factory=Counter)
    num_items: Counter[tuple[str, Any]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def clear(self) -> None:
        """No more faults; the counts start anew."""
        self.latency_s = 0.0
        self.call = self.item = None
        with self._lock:
            self.num_calls.clear()
            self.num_items.clear()

    def enter(self, method: str) -> None:
        """Counts a call, lets it take its time, and fails it if it is to fail."""
        with self._lock:
            self.num_calls[method] += 1
        if self.latency_s:
            time.sleep(self.latency_s)
        if self.call and (error := self.call(method)) is not None:
            raise error

    def error_of(self, method: str, item: Any) -> DndError | None:
        """Counts an item; its error, if it is to have one."""
        with self._lock:
            self.num_items[method, item] += 1
        return self.item(item) if self.item else None


def fail_times(num: int, error: DndError) -> Callable[[Any], DndError | None]:
    """A fault that strikes `num` times and is over then."""
    left = [num]
    lock = threading.Lock()

    def fault(_: Any) -> DndError | None:
        with lock:
            left[0] -= 1
            return error if left[0] >= 0 else None

    return fault


def rpc(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any, grpc.ServicerContext], Any]:
    """A method of a fake: counts, faults, and errors as the real servers send them."""

    @functools.wraps(function)
    def answer(servicer: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            servicer.faults.enter(function.__name__)
            return function(servicer, request)
        except DndError as error:
            _abort(error, context)

    return answer


def _abort(error: DndError, context: grpc.ServicerContext) -> NoReturn:
    context.set_trailing_metadata(trailers_of(error))
    context.abort(getattr(grpc.StatusCode, CODES[type(error)]), error.message)
