"""Kill switches of edits and edit sets, and who wrote and who approved a version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"

_COLUMNS = [
    ("edit_sets", "disabled_at", sa.BigInteger),
    ("edit_sets", "two_person", sa.BigInteger),
    ("edits", "disabled_at", sa.BigInteger),
    ("edit_versions", "written_by", sa.String),
    ("edit_versions", "needs_approval", sa.BigInteger),
    ("edit_versions", "approved_by", sa.String),
    ("edit_versions", "approved_at", sa.BigInteger),
]


def upgrade() -> None:
    """Add the columns: everything is switched on, nothing waits for approval."""
    for table, name, kind in _COLUMNS:
        op.add_column(table, sa.Column(name, kind))
    where = sa.text("disabled_at IS NOT NULL")
    op.create_index("edits_disabled", "edits", ["edit_set"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """Drop them. A version of the product without them reads what is in the snapshots."""
    op.drop_index("edits_disabled", "edits")
    for table, name, _ in reversed(_COLUMNS):
        op.drop_column(table, name)
    op.execute("DELETE FROM meta WHERE key = 'edits_off'")
