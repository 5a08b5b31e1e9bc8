"""What a new edit has to be compared with: all edits of its set that have gists.

The engine compares it with the newest snapshot that it holds and says which that is. Beside that snapshot there are
edits that joined meanwhile, and those that are ready and wait: for their time, an approval, or to be switched on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from incomes_server.edits import EditStatus, OnConflict
from incomes_server.store.log import ADD
from incomes_server.store.objects import fetched
from incomes_server.store.rows import chunks, in_pairs
from incomes_server.store.schema import edit_versions, edits, log
from incomes_server.store.vault import box_of
from sqlalchemy import Connection, select

from incomes_plugin.gist.edit import Compared, EditKey

e, v, g = edits.c, edit_versions.c, log.c

UNSETTLED = e.active_version.is_(None) | (e.active_version != e.head_version)
"""The newest version is not in the snapshot; the words of the index `edits_unsettled`."""

MOST_BESIDE = 1024
"""Edit versions of each kind beside the snapshot that a new one is compared with."""


@dataclass(frozen=True)
class Arrival:
    """A version whose gist was made, before it is decided what becomes of it; `seq` grows in the order of writing."""

    edit: EditKey
    seq: int
    on_conflict: OnConflict
    compared: Compared | None


@dataclass(frozen=True)
class Uncompared:
    """Edit versions with gists that a new one has yet to be compared with.

    Attributes:
        behind: more have joined than are listed; the engine catches up first.
    """

    edit: EditKey
    edit_set: str
    others: tuple[EditKey, ...]
    behind: bool = False


class Beside:
    """What of an edit set the snapshot that the engine compared with does not show."""

    def __init__(self, conn: Connection, edit_set: str) -> None:
        self._conn = conn
        self._edit_set = edit_set
        self._joined: dict[int, list[EditKey]] = {}
        self._held: list[EditKey] | None = None

    @property
    def is_partial(self) -> bool:
        """More wait beside the snapshot than are compared with."""
        return len(self._held or ()) > MOST_BESIDE

    def missing(self, arrival: Arrival, before: Sequence[Arrival]) -> Uncompared | None:
        """What an arrival was not compared with, among it those that arrive with it and before it; None = nothing."""
        compared = arrival.compared
        if compared is None:
            return None
        if self._held is None:
            self._held = self._read_held()
        if compared.position not in self._joined:
            self._joined[compared.position] = self._read_joined(compared.position)
        joined = self._joined[compared.position]
        mates = [mate.edit for mate in before if mate.compared is None or arrival.edit not in mate.compared.beside]
        wanted = dict.fromkeys([*joined[:MOST_BESIDE], *self._held[:MOST_BESIDE], *mates])
        others = [key for key in wanted if key not in compared.beside and key[0] != arrival.edit[0]]
        behind = len(joined) > MOST_BESIDE
        return Uncompared(arrival.edit, self._edit_set, tuple(others), behind) if others or behind else None

    def _read_joined(self, position: int) -> list[EditKey]:
        query = (
            select(g.edit_id, g.edit_version)
            .join_from(log, edit_versions, (v.edit_id == g.edit_id) & (v.version == g.edit_version))
            .where(g.edit_set == self._edit_set, g.version > position, g.op == ADD, v.status == EditStatus.READY)
        )
        return self._keys(query.distinct().limit(MOST_BESIDE + 1))

    def _read_held(self) -> list[EditKey]:
        """The newest edits with a version that never joined, and those that are switched off. Each is found by an index
        of this set's: it is asked at every outcome."""
        columns = select(v.edit_id, v.version).join_from(edits, edit_versions, e.id == v.edit_id)
        is_ready = v.status.concat("") == EditStatus.READY  # not by the index of states, which has those of all sets
        columns = columns.where(e.edit_set == self._edit_set, is_ready).limit(MOST_BESIDE + 1)
        held = columns.where(e.retired_at.is_(None), UNSETTLED, v.set_version.is_(None)).order_by(e.seq.desc())
        off = columns.where(e.disabled_at.is_not(None)).order_by(v.seq.desc())
        return list(dict.fromkeys(key for each in (held, off) for key in self._keys(each)))

    def _keys(self, query: Any) -> list[EditKey]:
        return [(edit_id, version) for edit_id, version in self._conn.execute(query)]


def ready_gists(conn: Connection, edit_set: str, keys: Sequence[EditKey]) -> dict[EditKey, bytes]:
    """Gists of those versions of a set that are ready."""
    gists: dict[EditKey, bytes] = {}
    for part in chunks(keys):
        query = select(v.edit_id, v.version, v.blob, v.data_key).join_from(edit_versions, edits, e.id == v.edit_id)
        query = query.where(in_pairs(v.edit_id, v.version, part), e.edit_set == edit_set, v.status == EditStatus.READY)
        rows = conn.execute(query).all()
        for row, blob in zip(rows, fetched(conn, [row.blob for row in rows]), strict=True):
            key = (row.edit_id, row.version)
            gists[key] = box_of(conn, row.data_key).open("blob", key, blob)
    return gists
