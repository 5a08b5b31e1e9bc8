"""Where each label is now, beside its moves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0060"
down_revision = "0050"

_SAME = "later.edit_set = label_moves.edit_set AND later.name = label_moves.name AND later.move > label_moves.move"


def upgrade() -> None:
    """Take the newest move of each."""
    op.create_table(
        "label_heads",
        sa.Column("edit_set", sa.String, sa.ForeignKey("edit_sets.id"), primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("move", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger),
        sa.Column("num_tokens", sa.BigInteger, nullable=False),
        sa.Column("moved_at", sa.BigInteger, nullable=False),
    )
    columns = "edit_set, name, move, version, num_tokens, moved_at"
    op.execute(
        f"INSERT INTO label_heads ({columns}) SELECT {columns} FROM label_moves "
        f"WHERE NOT EXISTS (SELECT 1 FROM label_moves AS later WHERE {_SAME})"
    )


def downgrade() -> None:
    """The newest move of each is among the moves."""
    op.drop_table("label_heads")
