"""Head of an edit set's log: version, content digest and size. `advance` is called once for each committed change."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from incomes_plugin.pool.snapshot import EMPTY_DIGEST, add_to_digest

EditVersion: TypeAlias = tuple[str, int]
"""(edit id, version): names the content from which a gist is made, which never changes."""


@dataclass(frozen=True)
class Head:
    """State of an edit set after `version` changes.

    Attributes:
        version: dense, 0 = nothing ever happened.
        digest: multiset hash of the (edit id, version) pairs in the snapshot.
        num_edits: how many pairs.
    """

    version: int = 0
    digest: str = EMPTY_DIGEST
    num_edits: int = 0

    def advance(self, added: Collection[EditVersion], removed: Collection[EditVersion]) -> Head:
        """The next version: `removed` leave, `added` join."""
        digest = self.digest
        for edit_id, version in removed:
            digest = add_to_digest(digest, edit_id, version, -1)
        for edit_id, version in added:
            digest = add_to_digest(digest, edit_id, version)
        return Head(self.version + 1, digest, self.num_edits + len(added) - len(removed))
