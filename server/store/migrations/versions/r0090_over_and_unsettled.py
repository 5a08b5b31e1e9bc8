"""Indexes: what waits of a set, and gists of versions that are over, are found without a look at all others. And an
import's `on_conflict`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0090"
down_revision = "0080"

_HELD = sa.text("status = 'ready' AND set_version IS NULL")
_OVER = sa.text("status IN ('retired', 'superseded') AND blob IS NOT NULL")
_UNSETTLED = sa.text("retired_at IS NULL AND (active_version IS NULL OR active_version <> head_version)")


def upgrade() -> None:
    """The index of versions that are held knew no sets: it was read whole at each outcome."""
    op.add_column("batches", sa.Column("on_conflict", sa.String))
    op.drop_index("edit_versions_held", "edit_versions")
    columns = ["status", "updated_at"]
    op.create_index("edit_versions_over", "edit_versions", columns, sqlite_where=_OVER, postgresql_where=_OVER)
    op.create_index(
        "edits_unsettled", "edits", ["edit_set", "seq"], sqlite_where=_UNSETTLED, postgresql_where=_UNSETTLED
    )


def downgrade() -> None:
    """As before."""
    op.drop_index("edits_unsettled", "edits")
    op.drop_index("edit_versions_over", "edit_versions")
    op.create_index("edit_versions_held", "edit_versions", ["edit_id"], sqlite_where=_HELD, postgresql_where=_HELD)
    op.drop_column("batches", "on_conflict")
