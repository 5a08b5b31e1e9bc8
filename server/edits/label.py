"""Labels and the sealed states that they point at: nouns, and the rule for names. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from incomes_plugin.errors import InvalidValue
from incomes_plugin.gist.edit import EditKey
from incomes_plugin.pool.snapshot import SnapshotRef, label_key

HEAD = "head"
"""Stands for the newest state of an edit set, where a label, a version or a snapshot could stand."""

_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


def check_label(name: str) -> str:
    """A name of a label that can be told from a version, a snapshot id and `head`.

    Raises:
        InvalidValue: it cannot.
    """
    if not _LABEL.fullmatch(name) or name == HEAD or name.startswith("snap_"):
        raise InvalidValue(
            "a label is a letter and up to 63 letters, digits, '.', '_' or '-', neither 'head' nor a snapshot's id",
            param="label",
        )
    return name


@dataclass(frozen=True)
class Sealed:
    """A state that an edit set has had; `created_at` is when it had it last anew."""

    snapshot: SnapshotRef
    created_at: int
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Label:
    """A name that points at one sealed state of its edit set, whatever becomes of the newest one.

    Attributes:
        move: counts the moves; a label that was deleted and made again goes on counting.
        snapshot: where it points.
        previous: where it pointed before this move; None at the first one, or when that state is forgotten.
    """

    edit_set: str
    name: str
    move: int
    snapshot: SnapshotRef
    moved_at: int
    previous: SnapshotRef | None

    @property
    def key(self) -> str:
        """What replicas follow, beside the edit sets."""
        return label_key(self.edit_set, self.name)


@dataclass(frozen=True)
class SnapshotDiff:
    """What lies between two states of an edit set, as edit versions."""

    base: SnapshotRef
    target: SnapshotRef
    added: tuple[EditKey, ...]
    removed: tuple[EditKey, ...]
