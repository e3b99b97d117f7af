"""Deleted jobs: hidden at once, their rows removed later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("deleted_at", sa.Double(), nullable=False, server_default="0"))
        table.create_index(
            "ix_job_deleted",
            ["id"],
            sqlite_where=sa.text("deleted_at > 0"),
            postgresql_where=sa.text("deleted_at > 0"),
        )


def downgrade() -> None:
    with op.batch_alter_table("job") as table:
        table.drop_index("ix_job_deleted")
        table.drop_column("deleted_at")
