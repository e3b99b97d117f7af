"""Tokens, concept sets of tenants, and embeddings of labels to search by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "token",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("role", sa.String(12), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("revoked_at", sa.Double(), nullable=False),
        sa.UniqueConstraint("secret_hash", name="uq_token_hash"),
    )
    op.create_table(
        "concept_set",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("ref", sa.String(80), primary_key=True),
    )
    op.create_table(
        "label_vector",
        sa.Column("model", sa.String(80), primary_key=True),
        sa.Column("label", sa.String(64), primary_key=True),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
    )


def downgrade() -> None:
    for name in ("label_vector", "concept_set", "token"):
        op.drop_table(name)
