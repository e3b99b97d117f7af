"""The coordinator's record. Every function takes a session, and a change is one transaction."""

from dnd_services.coordinator.store.engine import Store

__all__ = ["Store"]
