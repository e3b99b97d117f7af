"""Names of the classes that units of a classifier stand for; for display only."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from dnd.clients import Services
from dnd.errors import DndError
from dnd_services.coordinator.models import JobRow

WAIT_S = 0.3
"""How long a page waits for names that are asked for the first time, seconds."""
ASK_AGAIN_S = 60.0
MAX_NETWORKS = 32

Names: TypeAlias = Mapping[str, Sequence[str]]
"""Layer to the names of its units."""


@dataclass
class _Answer:
    """What is known of a network.

    Attributes:
        until: When it is asked again, on the clock of `ClassNames`.
    """

    names: Names = field(default_factory=dict)
    until: float = math.inf
    is_there: threading.Event = field(default_factory=threading.Event)


class ClassNames:
    """Asks for the names of a network's classes once, and keeps them.

    Loading a network may take long, and its service may be away: pages do without the names then.

    Args:
        clock: Seconds that go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], _Answer] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, job: JobRow, services: Services) -> Names:
        """The names of the classes of a job's network; none where it has none, or is away."""
        key = (job.frozen["model"], job.frozen["digests"].get("target", ""))
        with self._lock:
            answer = self._known.get(key)
            if answer is not None and self._clock() < answer.until:
                return answer.names
            answer = self._known[key] = _Answer()
            while len(self._known) > MAX_NETWORKS:
                self._known.popitem(last=False)
        threading.Thread(target=self._ask, args=(*key, services, answer), daemon=True).start()
        answer.is_there.wait(WAIT_S)
        return answer.names

    def _ask(self, model: str, digest: str, services: Services, answer: _Answer) -> None:
        names: Names = {}
        again = self._clock() + ASK_AGAIN_S
        try:
            infos, found = services.activations.list_layers(model)
            if found == digest:  # else other weights have its name now
                names = {one.path: one.unit_names for one in infos if one.unit_names}
                again = math.inf
        except DndError:  # it is away, or no longer configured
            pass
        finally:
            answer.names, answer.until = names, again
            answer.is_there.set()
