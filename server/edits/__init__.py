"""The domain, pure: what an edit is and what it may become. Keys and jobs are the runtime's nouns (`gist/edit.py`).

NewEdit ──► Edit (EditStatus, lifecycle.py) ──► joins the snapshot: SnapshotRef.advance ──► SnapshotDelta for replicas
"""

from incomes_server.edits.ids import IdPrefix, is_id, new_id
from incomes_server.edits.lifecycle import SETTLED, TRANSITIONS, WAITING, check_name, check_version, sources_of
from incomes_server.edits.model import (
    ConflictWith,
    Edit,
    EditProvenance,
    EditSet,
    EditStatus,
    NewEdit,
    OnConflict,
    WaitingText,
)
from incomes_server.edits.verbatim import RecallKeys, VerbatimState, VerbatimStatus, VerbatimText, found_by

__all__ = [
    "SETTLED",
    "TRANSITIONS",
    "WAITING",
    "ConflictWith",
    "Edit",
    "EditProvenance",
    "EditSet",
    "EditStatus",
    "IdPrefix",
    "NewEdit",
    "OnConflict",
    "RecallKeys",
    "VerbatimState",
    "VerbatimStatus",
    "VerbatimText",
    "WaitingText",
    "check_name",
    "check_version",
    "found_by",
    "is_id",
    "new_id",
    "sources_of",
]
