"""Alembic's way in: runs the migrations on the connection that `migrate.py` gives."""

from __future__ import annotations

from alembic import context

from dnd_services.coordinator.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
