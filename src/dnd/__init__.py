"""Describe-and-Dissect: every unit of a vision network, described in plain language.

`dnd.Client` and the types that it takes are loaded when they are first asked for, so that
`import dnd` stays light in the server processes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnd.async_client import AsyncClient as AsyncClient
    from dnd.client import Client as Client
    from dnd.errors import DndError as DndError
    from dnd.jobs import Estimate as Estimate
    from dnd.jobs import Job as Job
    from dnd.jobs import JobSpec as JobSpec
    from dnd.jobs import JobState as JobState
    from dnd.jobs import LayerUnits as LayerUnits
    from dnd.jobs import UnitResult as UnitResult
    from dnd.jobs import UnitState as UnitState
    from dnd.report.frames import labels_frame as labels_frame

_HOMES = {
    "AsyncClient": "dnd.async_client",
    "Client": "dnd.client",
    "DndError": "dnd.errors",
    "Estimate": "dnd.jobs",
    "Job": "dnd.jobs",
    "JobSpec": "dnd.jobs",
    "JobState": "dnd.jobs",
    "LayerUnits": "dnd.jobs",
    "UnitResult": "dnd.jobs",
    "UnitState": "dnd.jobs",
    "labels_frame": "dnd.report.frames",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dnd' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
