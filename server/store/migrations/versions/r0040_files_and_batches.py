"""Files in parts of whole lines, imports of files and what became of each line."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0033"

_Seq = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the four tables."""
    op.create_table(
        "files",
        sa.Column("seq", _Seq, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("project", sa.String, nullable=False),
        sa.Column("filename", sa.String, nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("num_bytes", sa.BigInteger, nullable=False),
        sa.Column("num_lines", sa.BigInteger, nullable=False),
        sa.Column("num_parts", sa.BigInteger, nullable=False),
        sa.Column("has_content", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("batch", sa.String),
        sa.Column("of_errors", sa.Boolean, nullable=False),
    )
    op.create_table(
        "file_parts",
        sa.Column("file_id", sa.String, primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("first_line", sa.BigInteger, nullable=False),
        sa.Column("num_lines", sa.BigInteger, nullable=False),
        sa.Column("num_bytes", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("data_key", sa.String),
    )
    op.create_table(
        "batches",
        sa.Column("seq", _Seq, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("project", sa.String, nullable=False),
        sa.Column("edit_set", sa.String, sa.ForeignKey("edit_sets.id"), nullable=False),
        sa.Column("input_file", sa.String, nullable=False),
        sa.Column("dry_run", sa.Boolean, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("num_parts", sa.BigInteger, nullable=False),
        sa.Column("settled", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("completed", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("in_progress_at", sa.BigInteger),
        sa.Column("finalizing_at", sa.BigInteger),
        sa.Column("cancelling_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("output_file", sa.String),
        sa.Column("error_file", sa.String),
        sa.Column("metadata", sa.Text, nullable=False),
    )
    op.create_table(
        "batch_lines",
        sa.Column("batch", sa.String, primary_key=True),
        sa.Column("line", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("custom_id", sa.String),
        sa.Column("edit_id", sa.String),
        sa.Column("error", sa.Text),
    )
    op.create_index("files_of_project", "files", ["project", "seq"])
    op.create_index("batches_of_project", "batches", ["project", "seq"])
    op.create_index("batches_unfinished", "batches", ["status", "seq"])
    op.create_index("batch_custom_ids", "batch_lines", ["batch", "custom_id"])


def downgrade() -> None:
    """Drop them; edits that were imported stay."""
    for table in ("batch_lines", "batches", "file_parts", "files"):
        op.drop_table(table)
