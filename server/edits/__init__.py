"""The domain, pure: what an edit is, what it may become, how a change moves the head of its edit set.

NewEdit ──► Edit (EditStatus, lifecycle.py) ──► joins the snapshot: Head.advance (head.py) ──► Delta for the replicas
"""

from incomes_server.edits.head import EditVersion, Head
from incomes_server.edits.ids import IdPrefix, is_id, new_id
from incomes_server.edits.lifecycle import SETTLED, TRANSITIONS, WAITING, check_name, sources_of
from incomes_server.edits.model import (
    CompressionJob,
    CompressionOutcome,
    Delta,
    Edit,
    EditSet,
    EditStatus,
    NewEdit,
    WaitingText,
)

__all__ = [
    "SETTLED",
    "TRANSITIONS",
    "WAITING",
    "CompressionJob",
    "CompressionOutcome",
    "Delta",
    "Edit",
    "EditSet",
    "EditStatus",
    "EditVersion",
    "Head",
    "IdPrefix",
    "NewEdit",
    "WaitingText",
    "check_name",
    "is_id",
    "new_id",
    "sources_of",
]
