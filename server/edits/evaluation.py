"""What an edit set is asked before its labels move, and what it answered. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from incomes_server.edits.questions import Asked, AskedQuestion

from incomes_plugin.pool.snapshot import SnapshotRef


@dataclass(frozen=True)
class EvalSuite:
    """The questions of an edit set.

    Attributes:
        generated: edits that no question is given for are asked by one made from their words.
        required: labels of the set move only to states whose last run passed.
        least_share: of right answers, from which on a run has passed.
    """

    edit_set: str
    questions: tuple[AskedQuestion, ...] = ()
    generated: bool = True
    required: bool = False
    least_share: float = 1.0
    updated_at: int = 0


@dataclass(frozen=True)
class EvalRun:
    """What one state of an edit set answered.

    Attributes:
        passed: enough answers were right.
        asked: empty once an edit of the set was erased: any answer may say what was in it.
    """

    id: str
    edit_set: str
    snapshot: SnapshotRef
    created_at: int
    passed: bool
    asked: tuple[Asked, ...]

    @property
    def num_right(self) -> int:
        """Right answers."""
        return sum(asked.passed for asked in self.asked)


def is_enough(asked: Sequence[Asked], least_share: float) -> bool:
    """Whether a run with these answers has passed."""
    return sum(each.passed for each in asked) >= least_share * len(asked)
