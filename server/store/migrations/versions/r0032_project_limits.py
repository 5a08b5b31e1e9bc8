"""Limits that an operator sets for a project."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "project_limits",
        sa.Column("project", sa.String, primary_key=True),
        sa.Column("max_edits", sa.BigInteger),
        sa.Column("max_gist_bytes", sa.BigInteger),
        sa.Column("max_running_requests", sa.BigInteger),
        sa.Column("chat_requests_per_minute", sa.BigInteger),
        sa.Column("writes_per_minute", sa.BigInteger),
    )


def downgrade() -> None:
    """Drop it: the limits of the settings hold for all."""
    op.drop_table("project_limits")
