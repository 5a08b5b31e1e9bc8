"""From when and until when an edit version is in force."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Add the columns."""
    for name in ("effective_from", "expires_at", "due_at"):
        op.add_column("edit_versions", sa.Column(name, sa.BigInteger))
    op.create_index("edit_version_due", "edit_versions", ["due_at"])


def downgrade() -> None:
    """Drop them. A version of the product without them serves what is in the snapshots, expired or not."""
    op.drop_index("edit_version_due", "edit_versions")
    for name in ("due_at", "expires_at", "effective_from"):
        op.drop_column("edit_versions", name)
