"""The explorer's pages; `router` is mounted by `create_app`."""

from __future__ import annotations

from dnd_services.coordinator.web.pages.routes import router

__all__ = ["router"]
