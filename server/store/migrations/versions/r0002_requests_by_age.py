"""An index that lets old request ids be forgotten at a start without reading all of them."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the index; versions before work with it."""
    op.create_index("requests_by_age", "requests", ["created_at"])


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("requests_by_age", "requests")
