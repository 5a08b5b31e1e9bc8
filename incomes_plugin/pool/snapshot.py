"""Snapshot identity and delta, shared by the server (which makes them) and the engine (which applies them)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Generic, Self, TypeVar

from incomes_plugin.gist.edit import EditKey

GistT = TypeVar("GistT")
OtherT = TypeVar("OtherT")

EMPTY_DIGEST = "0" * 64
_MODULUS = 1 << 256


def label_key(edit_set: str, label: str) -> str:
    """What a label's state goes by beside the edit sets: ids of edit sets have no `@`."""
    return f"{edit_set}@{label}"


def set_of(key: str) -> str:
    """The edit set that a label, or a copy made for a trial, belongs to: its switches are the set's."""
    return key.partition("@")[0]


def add_to_digest(digest: str, edit_id: str, version: int, sign: int = 1) -> str:
    """Additive multiset hash: add (or with `sign=-1` remove) one (edit id, version). O(1), order-free.

    Args:
        digest: 64 hex digits, `EMPTY_DIGEST` for the empty set.
    """
    item = int.from_bytes(hashlib.sha256(f"{edit_id}:{version}".encode()).digest())
    return f"{(int(digest, 16) + sign * item) % _MODULUS:064x}"


def subtract_digests(digest: str, part: str) -> str:
    """The digest of what is left when everything in `part` is taken out."""
    return f"{(int(digest, 16) - int(part, 16)) % _MODULUS:064x}"


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

    @classmethod
    def empty(cls, edit_set: str) -> Self:
        """The set before anything was in it: the stock path of the engine."""
        return cls(edit_set, 0, EMPTY_DIGEST, 0)

    @property
    def id(self) -> str:
        """`snap_<24 hex>`, a function of edit set and content only."""
        return "snap_" + hashlib.sha256(f"{self.edit_set}|{self.digest}".encode()).hexdigest()[:24]

    def advance(self, added: Collection[EditKey], removed: Collection[EditKey]) -> Self:
        """The next version: `removed` leave, `added` join."""
        digest = self.digest
        for edit_id, version in removed:
            digest = add_to_digest(digest, edit_id, version, -1)
        for edit_id, version in added:
            digest = add_to_digest(digest, edit_id, version)
        num_edits = self.num_edits + len(added) - len(removed)
        return type(self)(self.edit_set, self.version + 1, digest, num_edits)


@dataclass(frozen=True)
class SnapshotDelta(Generic[GistT]):
    """Takes an edit set from snapshot `base` to `snapshot`: read from the store, sent to the engine, committed there.

    Attributes:
        base: id of the snapshot it starts from; None = nothing.
        snapshot: the state after it.
        added: gists to add: blobs of one or many (`dump_gists`) on the way, `Gist`s for the pool.
        removed: edit versions to drop, before anything is added.
        ages: of each added gist, in order; of two edits that contradict one another the one with the larger age wins.
            Empty: every gist is later than those before it.
        until: of each added gist, in order, the unix second from which on no request reads it any more; None: no end.
            Empty: none has an end.
        barred: edits of the set that are switched off: no request reads them, in whatever snapshot. All of them, in
            each delta of the newest state.
        off: whose switch takes all edits from the set's requests, `edit_set` or `server`; None: nobody's.
        deleted: the set, or the label, is gone, and nothing else is told of it.
        label: the state is for this label of the set, beside the newest one. `base` is any state that the engine has.
        move: number of the label's move; 0 without a label.
    """

    base: str | None
    snapshot: SnapshotRef
    added: tuple[GistT, ...] = ()
    removed: tuple[EditKey, ...] = ()
    ages: tuple[int, ...] = ()
    until: tuple[int | None, ...] = ()
    deleted: bool = False
    label: str | None = None
    move: int = 0
    barred: tuple[str, ...] = ()
    off: str | None = None

    @property
    def key(self) -> str:
        """What replicas count by: the edit set, or the label in it."""
        edit_set = self.snapshot.edit_set
        return edit_set if self.label is None else label_key(edit_set, self.label)

    @property
    def position(self) -> int:
        """How far the delta leads: a version of the edit set, or a move of the label."""
        return self.snapshot.version if self.label is None else self.move

    def holding(self, added: tuple[OtherT, ...]) -> SnapshotDelta[OtherT]:
        """The same delta with its gists in another form."""
        return replace(self, added=added)  # type: ignore[arg-type, return-value]
