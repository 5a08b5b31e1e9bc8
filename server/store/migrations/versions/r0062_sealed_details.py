"""Metadata and provenance of edits, encrypted where texts are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from incomes_plugin.errors import NotReady

revision = "0062"
down_revision = "0061"


def upgrade() -> None:
    """Add the column; a store with a master key fills it in small steps while it serves."""
    op.add_column("edit_versions", sa.Column("details", sa.Text))
    where = sa.text("data_key IS NOT NULL AND details IS NULL")
    op.create_index(
        "edit_version_clear_details", "edit_versions", ["data_key"], sqlite_where=where, postgresql_where=where
    )


def downgrade() -> None:
    """Without it. A version that does not know the column would lose what is in it.

    Raises:
        NotReady: something is in it.
    """
    found = op.get_bind().execute(sa.text("SELECT 1 FROM edit_versions WHERE details IS NOT NULL LIMIT 1")).first()
    if found is not None:
        raise NotReady("metadata and provenance are encrypted: export the edits, then import them with the older one")
    op.drop_index("edit_version_clear_details", "edit_versions")
    op.drop_column("edit_versions", "details")
