"""Projects and API keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0010"

_Seq = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make both tables. The keys of the settings go on working, and are not in them."""
    op.create_table(
        "projects",
        sa.Column("seq", _Seq, primary_key=True, autoincrement=True),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("seq", _Seq, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("project", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("scopes", sa.String, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("replaced_by", sa.String),
    )
    op.create_index("api_keys_of_project", "api_keys", ["project", "seq"])


def downgrade() -> None:
    """Drop them: a server of the version before knows the keys of its settings alone."""
    op.drop_index("api_keys_of_project", "api_keys")
    op.drop_table("api_keys")
    op.drop_table("projects")
