"""Test suites of edit sets, and what their states answered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0050"
down_revision = "0023"

_Seq = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add both tables."""
    op.create_table(
        "eval_suites",
        sa.Column("edit_set", sa.String, sa.ForeignKey("edit_sets.id"), primary_key=True),
        sa.Column("project", sa.String, nullable=False),
        sa.Column("questions", sa.Text, nullable=False),
        sa.Column("data_key", sa.String),
        sa.Column("generated", sa.Boolean, nullable=False),
        sa.Column("required", sa.Boolean, nullable=False),
        sa.Column("least_share", sa.Float, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "eval_runs",
        sa.Column("seq", _Seq, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("edit_set", sa.String, sa.ForeignKey("edit_sets.id"), nullable=False),
        sa.Column("project", sa.String, nullable=False),
        sa.Column("snapshot", sa.String(29), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("num_edits", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("results", sa.Text, nullable=False),
        sa.Column("data_key", sa.String),
    )
    op.create_index("eval_runs_of_set", "eval_runs", ["edit_set", "seq"])


def downgrade() -> None:
    """Without them; labels move as before."""
    op.drop_index("eval_runs_of_set", "eval_runs")
    op.drop_table("eval_runs")
    op.drop_table("eval_suites")
