"""Which key began an import, and so wrote its edits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0061"
down_revision = "0060"


def upgrade() -> None:
    """Add the column; of imports that are there already nobody knows."""
    op.add_column("batches", sa.Column("created_by", sa.String))


def downgrade() -> None:
    """Without it; the audit log keeps what it said."""
    op.drop_column("batches", "created_by")
