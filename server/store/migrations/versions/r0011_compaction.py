"""How far the log of an edit set is compacted, and the log by edit version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0032"


def upgrade() -> None:
    """Nothing is compacted at first."""
    op.add_column("edit_sets", sa.Column("oldest", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index("log_by_edit", "log", ["edit_id", "edit_version"])


def downgrade() -> None:
    """A compacted log stays as it is: versions before read it too, but for pages that end between its marks."""
    op.drop_index("log_by_edit", "log")
    op.drop_column("edit_sets", "oldest")
