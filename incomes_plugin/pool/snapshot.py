"""Snapshot identity and delta, shared by the server (which makes them) and the engine (which applies them)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

EMPTY_DIGEST = "0" * 64
_MODULUS = 1 << 256


def add_to_digest(digest: str, edit_id: str, version: int, sign: int = 1) -> str:
    """Additive multiset hash: add (or with `sign=-1` remove) one (edit id, version). O(1), order-free.

    Args:
        digest: 64 hex digits, `EMPTY_DIGEST` for the empty set.
    """
    item = int.from_bytes(hashlib.sha256(f"{edit_id}:{version}".encode()).digest())
    return f"{(int(digest, 16) + sign * item) % _MODULUS:064x}"


@dataclass(frozen=True)
class SnapshotRef:
    """A sealed state of one edit set. Two states of a set with the same content have the same id, however they came
    about.

    Attributes:
        edit_set: id of the edit set (globally unique, so it carries the tenant).
        version: version of the edit set's log.
        digest: multiset hash of the (edit id, version) pairs.
        num_edits: N.
    """

    edit_set: str
    version: int
    digest: str
    num_edits: int

    @property
    def id(self) -> str:
        """`snap_<24 hex>`, a function of edit set and content only."""
        return "snap_" + hashlib.sha256(f"{self.edit_set}|{self.digest}".encode()).hexdigest()[:24]


@dataclass(frozen=True)
class SnapshotDelta:
    """Takes the engine's pool from snapshot `base` to `snapshot`.

    Attributes:
        base: id of the snapshot it starts from; None = the empty pool.
        snapshot: the state after it.
        added: gist blobs (`dump_gists`), one or many gists each.
        removed: (edit id, version) pairs to drop.
        ages: of each added gist, in order; of two edits that contradict one another the one with the larger age wins.
            Empty: every gist is later than those before it.
    """

    base: str | None
    snapshot: SnapshotRef
    added: tuple[bytes, ...] = ()
    removed: tuple[tuple[str, int], ...] = ()
    ages: tuple[int, ...] = ()
