"""Percentiles beside the labels, so that units can be sorted by them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("unit") as table:
        table.add_column(sa.Column("percentile", sa.Double(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("unit") as table:
        table.drop_column("percentile")
