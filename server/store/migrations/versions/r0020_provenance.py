"""Where an edit version comes from; what an edit supersedes, and when it first was in a snapshot."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0030"

_COLUMNS = [
    ("edits", "supersedes", sa.Text),
    ("edits", "joined_at", sa.BigInteger),
    ("edit_versions", "source_url", sa.Text),
    ("edit_versions", "document_id", sa.String),
    ("edit_versions", "author", sa.String),
    ("edit_versions", "justification", sa.Text),
]


def upgrade() -> None:
    """Add the columns; edits of before have superseded nothing."""
    for table, name, kind in _COLUMNS:
        op.add_column(table, sa.Column(name, kind))
    op.create_index("edit_version_documents", "edit_versions", ["document_id"])
    op.create_index("edit_version_authors", "edit_versions", ["author"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("edit_version_authors", "edit_versions")
    op.drop_index("edit_version_documents", "edit_versions")
    for table, name, _ in reversed(_COLUMNS):
        op.drop_column(table, name)
