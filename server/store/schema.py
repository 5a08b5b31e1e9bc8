"""The tables. `revisions` and `log` are append-only and the truth; `edit_sets` and `edits` hold the present state.

edit_sets 1─n edits 1─n edit_versions (text, token ids, gist blob) 1─0..1 verbatims (vectors that say the text)
    1─n revisions (version, digest) 1─n log (op, edit version)
    1─n label_heads (label, version that it points at) 1─n label_moves (where it was before)
files 1─n file_parts (whole lines)      batches (how far the import of a file is) 1─n batch_lines (edit, or error)

A change here needs a revision in `migrations/`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

SCHEMA_VERSION = 2
"""What versions before Alembic find in `meta`; raised by a revision that they could not work with."""

metadata = MetaData()

_Seq = BigInteger().with_variant(Integer, "sqlite")

meta = Table("meta", metadata, Column("key", String, primary_key=True), Column("value", String, nullable=False))

edit_sets = Table(
    "edit_sets",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("project", String, nullable=False),
    Column("name", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    Column("version", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("num_edits", BigInteger, nullable=False),
    # Oldest version whose gists exist: pages for replicas end at or after it, older states cannot be rebuilt.
    Column("floor", BigInteger, nullable=False),
    # Oldest version whose state is remembered; before it the log has only what is still there (`compaction.py`).
    Column("oldest", BigInteger, nullable=False, server_default="0"),
    Column("disabled_at", BigInteger),
    Column("two_person", BigInteger),
    Column("on_conflict", String),
)
Index(
    "edit_set_names",
    edit_sets.c.project,
    edit_sets.c.name,
    unique=True,
    sqlite_where=text("deleted_at IS NULL"),
    postgresql_where=text("deleted_at IS NULL"),
)

edits = Table(
    "edits",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("edit_set", String, ForeignKey("edit_sets.id"), nullable=False),
    Column("project", String, nullable=False),
    Column("external_id", String),
    Column("created_at", BigInteger, nullable=False),
    Column("retired_at", BigInteger),
    Column("head_version", BigInteger, nullable=False),
    Column("active_version", BigInteger),
    Column("supersedes", Text),
    Column("erased_at", BigInteger),
    Column("disabled_at", BigInteger),
    # When it first was in a snapshot; what it supersedes has left then, and does not leave again.
    Column("joined_at", BigInteger),
)
Index("edits_of_set", edits.c.edit_set, edits.c.seq)
Index(
    "edits_disabled",
    edits.c.edit_set,
    sqlite_where=text("disabled_at IS NOT NULL"),
    postgresql_where=text("disabled_at IS NOT NULL"),
)
# Edits whose newest version is not in the snapshot: it waits to be made, or for its time or an approval.
Index(
    "edits_unsettled",
    edits.c.edit_set,
    edits.c.seq,
    sqlite_where=text("retired_at IS NULL AND (active_version IS NULL OR active_version <> head_version)"),
    postgresql_where=text("retired_at IS NULL AND (active_version IS NULL OR active_version <> head_version)"),
)
Index("edits_of_project", edits.c.project, edits.c.seq)
Index(
    "edit_external_ids",
    edits.c.edit_set,
    edits.c.external_id,
    unique=True,
    sqlite_where=text("retired_at IS NULL"),
    postgresql_where=text("retired_at IS NULL"),
)

edit_versions = Table(
    "edit_versions",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("edit_id", String, ForeignKey("edits.id"), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("status", String, nullable=False),
    Column("status_reason", String),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("set_version", BigInteger),
    Column("num_tokens", BigInteger, nullable=False),
    Column("gist_bytes", BigInteger, nullable=False),
    Column("fingerprint", String),
    Column("metadata", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("token_ids", LargeBinary, nullable=False),
    Column("blob", LargeBinary),
    Column("data_key", String),  # under which text, token_ids, blob and details are encrypted; null = in the clear
    # Encrypted: metadata and provenance. Their columns are empty then, but for digests of those that rows are found by.
    Column("details", Text),
    Column("source_url", Text),
    Column("document_id", String),
    Column("author", String),
    Column("justification", Text),
    Column("effective_from", BigInteger),
    Column("expires_at", BigInteger),
    # When the clock changes next whether it is in the snapshot; empty when it never does.
    Column("due_at", BigInteger),
    # Id of the key that wrote it. Where it needs an approval, another one has to approve it.
    Column("written_by", String),
    Column("needs_approval", BigInteger),
    Column("approved_by", String),
    Column("approved_at", BigInteger),
    Column("on_conflict", String),
    Column("conflict_check", String),
    Column("kind", String),  # null = a fact
    UniqueConstraint("edit_id", "version"),
)
Index("edit_version_documents", edit_versions.c.document_id)
Index("edit_version_authors", edit_versions.c.author)
Index("edit_version_due", edit_versions.c.due_at)
Index("edit_version_states", edit_versions.c.status, edit_versions.c.seq)
Index(
    "edit_version_models",
    edit_versions.c.fingerprint,
    sqlite_where=text("status = 'ready'"),
    postgresql_where=text("status = 'ready'"),
)

Index("edit_version_data_keys", edit_versions.c.data_key)
Index(
    "edit_version_clear_details",
    edit_versions.c.data_key,
    sqlite_where=text("data_key IS NOT NULL AND details IS NULL"),
    postgresql_where=text("data_key IS NOT NULL AND details IS NULL"),
)
# Versions that are over and still have a gist: of states that are remembered, or of none.
Index(
    "edit_versions_over",
    edit_versions.c.status,
    edit_versions.c.updated_at,
    sqlite_where=text("status IN ('retired', 'superseded') AND blob IS NOT NULL"),
    postgresql_where=text("status IN ('retired', 'superseded') AND blob IS NOT NULL"),
)

# What a version was found to conflict with when it came; both are shown as long as they are ready.
edit_conflicts = Table(
    "edit_conflicts",
    metadata,
    Column("edit_id", String, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("other_id", String, primary_key=True),
    Column("other_version", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("score", Float, nullable=False),
)
Index("edit_conflicts_of_other", edit_conflicts.c.other_id, edit_conflicts.c.other_version)

# Of verbatim edit versions: what they are found by, and how far their vectors are.
verbatims = Table(
    "verbatims",
    metadata,
    Column("edit_id", String, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("state", String, nullable=False),
    Column("reason", String),
    Column("updated_at", BigInteger, nullable=False),
    # While it is optimised: by whom, and until when without a sign of life.
    Column("worker", String),
    Column("leased_until", BigInteger),
    Column("attempts", BigInteger, nullable=False),
    Column("vectors", BigInteger, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("margin", Float),
    Column("steps", BigInteger, nullable=False),
    Column("origin", String),  # hashes of the model, tokenizer and template that the vectors were made with, as JSON
    Column("said", Text, nullable=False),  # title and questions, as JSON
    Column("record", LargeBinary),  # the vectors: they say the text
    Column("data_key", String),  # under which `said` and `record` are encrypted; null = in the clear
)
Index("verbatims_waiting", verbatims.c.state, verbatims.c.updated_at)

revisions = Table(
    "revisions",
    metadata,
    Column("edit_set", String, ForeignKey("edit_sets.id"), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
    Column("num_edits", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("snapshot", String(29), nullable=False, server_default=""),
)
Index("revisions_by_snapshot", revisions.c.snapshot)

# The newest move of each label: it says where the label is; one without a version has deleted it.
label_heads = Table(
    "label_heads",
    metadata,
    Column("edit_set", String, ForeignKey("edit_sets.id"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("move", BigInteger, nullable=False),
    Column("version", BigInteger),
    Column("num_tokens", BigInteger, nullable=False),  # of the edits there, for the room that replicas need
    Column("moved_at", BigInteger, nullable=False),
)

# All moves that are remembered: the newest one of each label, the one before it, and those of `keep_history_s`.
label_moves = Table(
    "label_moves",
    metadata,
    Column("edit_set", String, ForeignKey("edit_sets.id"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("move", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger),
    Column("num_tokens", BigInteger, nullable=False),
    Column("moved_at", BigInteger, nullable=False),
)

log = Table(
    "log",
    metadata,
    Column("edit_set", String, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("op", String, nullable=False),
    Column("edit_id", String, nullable=False),
    Column("edit_version", BigInteger, nullable=False),
)
Index("log_by_edit", log.c.edit_id, log.c.edit_version)

requests = Table(
    "requests",
    metadata,
    Column("project", String, primary_key=True),
    Column("request_id", String, primary_key=True),
    Column("body_hash", String, nullable=False),
    Column("result", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

Index("requests_by_age", requests.c.created_at)

replicas = Table(
    "replicas",
    metadata,
    Column("name", String, primary_key=True),
    Column("joined_at", BigInteger, nullable=False),
)

# Append-only: nothing updates or deletes a row. `changes` is JSON: [[target, before, after], …].
audit_events = Table(
    "audit_events",
    metadata,
    Column("project", String, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("request_id", String),
    Column("changes", Text, nullable=False),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("project", String, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)

projects = Table(
    "projects",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("name", String, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
)

project_limits = Table(
    "project_limits",
    metadata,
    Column("project", String, primary_key=True),
    Column("max_edits", BigInteger),
    Column("max_gist_bytes", BigInteger),
    Column("max_running_requests", BigInteger),
    Column("chat_requests_per_minute", BigInteger),
    Column("writes_per_minute", BigInteger),
)

# A key is kept as its SHA-256: who reads the database cannot use it.
api_keys = Table(
    "api_keys",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("project", String, nullable=False),
    Column("name", String, nullable=False),
    Column("scopes", String, nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("replaced_by", String),
)
Index("api_keys_of_project", api_keys.c.project, api_keys.c.seq)

# `wrapped` is null when the key was erased or nothing is under it any more.
data_keys = Table(
    "data_keys",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("project", String, nullable=False),
    Column("wrapped", LargeBinary),
    Column("master", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
Index("data_keys_of_project", data_keys.c.project, data_keys.c.seq)

files = Table(
    "files",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("project", String, nullable=False),
    Column("filename", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("num_lines", BigInteger, nullable=False),
    Column("num_parts", BigInteger, nullable=False),
    Column("has_content", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("batch", String),
    Column("of_errors", Boolean, nullable=False),
)
Index("files_of_project", files.c.project, files.c.seq)

file_parts = Table(
    "file_parts",
    metadata,
    Column("file_id", String, primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("first_line", BigInteger, nullable=False),
    Column("num_lines", BigInteger, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("data_key", String),
)

batches = Table(
    "batches",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("project", String, nullable=False),
    Column("edit_set", String, ForeignKey("edit_sets.id"), nullable=False),
    Column("input_file", String, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("status", String, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("num_parts", BigInteger, nullable=False),
    Column("settled", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("completed", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("in_progress_at", BigInteger),
    Column("finalizing_at", BigInteger),
    Column("cancelling_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("output_file", String),
    Column("error_file", String),
    Column("metadata", Text, nullable=False),
    Column("created_by", String),
    Column("on_conflict", String),  # of lines that do not say it
)
Index("batches_of_project", batches.c.project, batches.c.seq)
Index("batches_unfinished", batches.c.status, batches.c.seq)

batch_lines = Table(
    "batch_lines",
    metadata,
    Column("batch", String, primary_key=True),
    Column("line", BigInteger, primary_key=True, autoincrement=False),
    Column("custom_id", String),
    Column("edit_id", String),
    Column("error", Text),
)
Index("batch_custom_ids", batch_lines.c.batch, batch_lines.c.custom_id)

eval_suites = Table(
    "eval_suites",
    metadata,
    Column("edit_set", String, ForeignKey("edit_sets.id"), primary_key=True),
    Column("project", String, nullable=False),
    Column("questions", Text, nullable=False),
    Column("data_key", String),
    Column("generated", Boolean, nullable=False),
    Column("required", Boolean, nullable=False),
    Column("least_share", Float, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

eval_runs = Table(
    "eval_runs",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("edit_set", String, ForeignKey("edit_sets.id"), nullable=False),
    Column("project", String, nullable=False),
    Column("snapshot", String(29), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("num_edits", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("results", Text, nullable=False),
    Column("data_key", String),
)
Index("eval_runs_of_set", eval_runs.c.edit_set, eval_runs.c.seq)

loose_objects = Table(
    "loose_objects",
    metadata,
    # An object of the gist storage that goes at that time, unless a transaction takes the row away.
    Column("reference", LargeBinary, primary_key=True),
    Column("due_at", BigInteger, nullable=False),
)
Index("loose_objects_due", loose_objects.c.due_at)
