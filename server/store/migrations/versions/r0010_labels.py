"""Labels, and the ids of snapshots beside the revisions that they name."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0020"


def upgrade() -> None:
    """Add them. The id is a function of edit set and content."""
    op.create_table(
        "label_moves",
        sa.Column("edit_set", sa.String, sa.ForeignKey("edit_sets.id"), primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("move", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger),
        sa.Column("num_tokens", sa.BigInteger, nullable=False),
        sa.Column("moved_at", sa.BigInteger, nullable=False),
    )
    op.add_column("revisions", sa.Column("snapshot", sa.String(29), nullable=False, server_default=""))
    conn = op.get_bind()
    rows = conn.execute(sa.text("SELECT edit_set, version, digest FROM revisions")).all()
    ids = [{"edit_set": row.edit_set, "version": row.version, "id": _id(row.edit_set, row.digest)} for row in rows]
    if ids:
        conn.execute(
            sa.text("UPDATE revisions SET snapshot = :id WHERE edit_set = :edit_set AND version = :version"), ids
        )
    op.create_index("revisions_by_snapshot", "revisions", ["snapshot"])


def downgrade() -> None:
    """Without labels; the edits and their history stay."""
    op.drop_index("revisions_by_snapshot", "revisions")
    op.drop_column("revisions", "snapshot")
    op.drop_table("label_moves")


def _id(edit_set: str, digest: str) -> str:
    return "snap_" + hashlib.sha256(f"{edit_set}|{digest}".encode()).hexdigest()[:24]
