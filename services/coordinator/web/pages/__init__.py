"""The explorer's pages; `router` is mounted by `create_app`."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
