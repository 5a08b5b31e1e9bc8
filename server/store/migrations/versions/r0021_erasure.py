"""When an edit was erased. A database of before may hold parts of replaced rows: the next start rewrites it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0040"


def upgrade() -> None:
    """Add the column, and ask for the rewriting."""
    op.add_column("edits", sa.Column("erased_at", sa.BigInteger))
    op.execute("INSERT INTO meta (key, value) SELECT 'scrub', 'rewrite' WHERE EXISTS (SELECT 1 FROM edits)")


def downgrade() -> None:
    """Drop it. What was erased stays so, as an edit without text."""
    op.drop_column("edits", "erased_at")
    op.execute("DELETE FROM meta WHERE key = 'scrub'")
