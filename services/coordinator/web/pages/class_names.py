"""Names of the classes that units of a classifier stand for; for display only."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from dnd.clients import Services
from dnd.errors import DndError
from dnd_services.coordinator.models import JobRow

ASK_S = 2.0
"""Time for the activations service to name them, seconds: the page goes without them else."""
ASK_AGAIN_S = 60.0
MAX_NETWORKS = 32

Names: TypeAlias = Mapping[str, Sequence[str]]
"""Layer to the names of its units."""


class ClassNames:
    """Asks for the names of a network's classes once, and keeps them.

    Args:
        clock: Seconds that go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], tuple[Names, float]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, job: JobRow, services: Services) -> Names:
        """The names of the classes of a job's network; none if it has none, or is away."""
        key = (job.frozen["model"], job.frozen["digests"].get("target", ""))
        with self._lock:
            names, until = self._known.get(key, ({}, -math.inf))
            if self._clock() < until:
                return names
        names, until = self._ask(*key, services)
        with self._lock:
            self._known[key] = (names, until)
            while len(self._known) > MAX_NETWORKS:
                self._known.popitem(last=False)
        return names

    def _ask(self, model: str, digest: str, services: Services) -> tuple[Names, float]:
        """The names, and until when they hold."""
        client = replace(services.activations, deadline_s=ASK_S)
        try:
            infos, found = client.list_layers(model)
        except DndError:  # it is away, or no longer configured
            return {}, self._clock() + ASK_AGAIN_S
        if found != digest:  # other weights have its name now
            return {}, self._clock() + ASK_AGAIN_S
        return {one.path: one.unit_names for one in infos if one.unit_names}, math.inf
