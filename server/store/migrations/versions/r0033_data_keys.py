"""Data keys of projects, and under which of them an edit version is encrypted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from incomes_plugin.errors import NotReady

revision = "0033"
down_revision = "0011"

_Seq = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make table and column; what is there is in the clear until a server with a master key encrypts it."""
    op.create_table(
        "data_keys",
        sa.Column("seq", _Seq, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("project", sa.String, nullable=False),
        sa.Column("wrapped", sa.LargeBinary),
        sa.Column("master", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("data_keys_of_project", "data_keys", ["project", "seq"])
    op.add_column("edit_versions", sa.Column("data_key", sa.String))
    op.create_index("edit_version_data_keys", "edit_versions", ["data_key"])


def downgrade() -> None:
    """Drop them. Raises NotReady where something is encrypted: the version before could not read it."""
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM data_keys WHERE wrapped IS NOT NULL")):
        raise NotReady("the edit store is encrypted: a version before encryption cannot read it")
    op.drop_index("edit_version_data_keys", "edit_versions")
    op.drop_column("edit_versions", "data_key")
    op.drop_index("data_keys_of_project", "data_keys")
    op.drop_table("data_keys")
