"""Objects of the gist storage that are to be deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0070"
down_revision = "0063"


def upgrade() -> None:
    """None yet."""
    op.create_table(
        "loose_objects",
        sa.Column("reference", sa.LargeBinary, primary_key=True),
        sa.Column("due_at", sa.BigInteger, nullable=False),
    )
    op.create_index("loose_objects_due", "loose_objects", ["due_at"])


def downgrade() -> None:
    """The objects stay where they are."""
    op.drop_table("loose_objects")
