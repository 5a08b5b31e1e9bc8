"""What became of a dictionary in one memory: the row of the table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """Shares; None = not measured.

    Attributes:
        name: of the kind of memory, or the gist pool.
        asked: facts that were asked about.
        recall, wrong, abstained: of the stored questions; they add up to 1.
        rephrased: recall of other wordings.
        foreign: questions that pair a subject and a relation of two facts and have no answer, answered all the same.
        fires: unrelated prompts that get an answer, or that read something from the pool.
        old_before, old_after: recall of old facts, without abstaining, before and after the last fifth of all came.
        new_after: recall of those.
        num_bytes: what a read needs.
    """

    name: str
    asked: int
    recall: float
    wrong: float
    abstained: float
    rephrased: float
    foreign: float | None
    fires: float | None
    old_before: float
    old_after: float
    new_after: float
    num_bytes: int
