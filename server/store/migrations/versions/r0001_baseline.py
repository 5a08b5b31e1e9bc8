"""The tables as they were when Alembic came; a database of that time is adopted with this revision."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_Seq = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make all tables. `schema_version` is what versions before Alembic look at."""
    meta = op.create_table(
        "meta", sa.Column("key", sa.String, primary_key=True), sa.Column("value", sa.String, nullable=False)
    )
    op.bulk_insert(meta, [{"key": "schema_version", "value": "2"}])
    op.create_table(
        "edit_sets",
        sa.Column("seq", _Seq, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("project", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("num_edits", sa.BigInteger, nullable=False),
        sa.Column("floor", sa.BigInteger, nullable=False),
    )
    _unique_where("edit_set_names", "edit_sets", ["project", "name"], "deleted_at IS NULL")
    op.create_table(
        "edits",
        sa.Column("seq", _Seq, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("edit_set", sa.String, sa.ForeignKey("edit_sets.id"), nullable=False),
        sa.Column("project", sa.String, nullable=False),
        sa.Column("external_id", sa.String),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("retired_at", sa.BigInteger),
        sa.Column("head_version", sa.BigInteger, nullable=False),
        sa.Column("active_version", sa.BigInteger),
    )
    op.create_index("edits_of_set", "edits", ["edit_set", "seq"])
    op.create_index("edits_of_project", "edits", ["project", "seq"])
    _unique_where("edit_external_ids", "edits", ["edit_set", "external_id"], "retired_at IS NULL")
    op.create_table(
        "edit_versions",
        sa.Column("seq", _Seq, primary_key=True, autoincrement=True),
        sa.Column("edit_id", sa.String, sa.ForeignKey("edits.id"), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("status_reason", sa.String),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("set_version", sa.BigInteger),
        sa.Column("num_tokens", sa.BigInteger, nullable=False),
        sa.Column("gist_bytes", sa.BigInteger, nullable=False),
        sa.Column("fingerprint", sa.String),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("token_ids", sa.LargeBinary, nullable=False),
        sa.Column("blob", sa.LargeBinary),
        sa.UniqueConstraint("edit_id", "version"),
    )
    op.create_index("edit_version_states", "edit_versions", ["status", "seq"])
    ready = sa.text("status = 'ready'")
    op.create_index("edit_version_models", "edit_versions", ["fingerprint"], sqlite_where=ready, postgresql_where=ready)
    op.create_table(
        "revisions",
        sa.Column("edit_set", sa.String, sa.ForeignKey("edit_sets.id"), primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("num_edits", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "log",
        sa.Column("edit_set", sa.String, primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("op", sa.String, nullable=False),
        sa.Column("edit_id", sa.String, nullable=False),
        sa.Column("edit_version", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "requests",
        sa.Column("project", sa.String, primary_key=True),
        sa.Column("request_id", sa.String, primary_key=True),
        sa.Column("body_hash", sa.String, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "replicas",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("joined_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop everything."""
    for table in ("replicas", "requests", "log", "revisions", "edit_versions", "edits", "edit_sets", "meta"):
        op.drop_table(table)


def _unique_where(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=True, sqlite_where=where, postgresql_where=where)
