"""Python's garbage collector in the coordinator and its workers."""

from __future__ import annotations

import gc

_ALLOCATIONS = 50_000
"""So many objects more than were freed, and the youngest are looked through; Python has 700."""


def freeze_heap() -> None:
    """Leaves all that has been loaded so far out of every collection, and collects more seldom.

    To be called once, when the process is ready: what it holds then it holds for good, and a task
    makes rows and messages by the ten thousand, hardly any in cycles (docs/scaling.md). It is not
    for model servers: a cycle that holds a tensor would keep the device's memory for longer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS)
