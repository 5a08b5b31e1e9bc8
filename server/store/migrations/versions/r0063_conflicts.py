"""What happens to an edit that conflicts with others, and which ones it was found to conflict with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0063"
down_revision = "0062"

_COLUMNS = [("edit_sets", "on_conflict"), ("edit_versions", "on_conflict"), ("edit_versions", "conflict_check")]


def upgrade() -> None:
    """Add columns and table: edits that are there have not been compared."""
    for table, name in _COLUMNS:
        op.add_column(table, sa.Column(name, sa.String))
    op.create_table(
        "edit_conflicts",
        sa.Column("edit_id", sa.String, primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("other_id", sa.String, primary_key=True),
        sa.Column("other_version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("score", sa.Float, nullable=False),
    )
    op.create_index("edit_conflicts_of_other", "edit_conflicts", ["other_id", "other_version"])
    where = sa.text("status = 'ready' AND set_version IS NULL")
    op.create_index("edit_versions_held", "edit_versions", ["edit_id"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """Without them; an edit that was refused has failed."""
    op.execute("UPDATE edit_versions SET status = 'failed' WHERE status = 'conflicted'")
    op.drop_index("edit_versions_held", "edit_versions")
    op.drop_table("edit_conflicts")
    for table, name in reversed(_COLUMNS):
        op.drop_column(table, name)
