"""Results of stages, to be found again by what they depend on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stage_result",
        sa.Column("key", sa.String(32), primary_key=True),
        sa.Column("ref", sa.String(80), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("stage_result")
