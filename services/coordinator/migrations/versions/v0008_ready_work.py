"""The index of work that can be handed out holds nothing else: few changes of work touch it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_NAME = "ix_work_ready"


def upgrade() -> None:
    op.drop_index(_NAME, "work")
    ready = sa.text("state = 'READY'")
    op.create_index(
        _NAME,
        "work",
        ["job_id", "stage", "id"],
        sqlite_where=ready,
        postgresql_where=ready,
    )


def downgrade() -> None:
    op.drop_index(_NAME, "work")
    op.create_index(_NAME, "work", ["job_id", "stage", "state", "id"])
