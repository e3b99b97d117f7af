"""The trace of the call that made a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("trace", sa.String(64), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("job") as table:
        table.drop_column("trace")
