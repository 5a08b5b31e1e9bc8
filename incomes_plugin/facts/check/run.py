"""Check a dictionary: every kind of memory and the gist pool, and advice; as lines, JSON and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from incomes_plugin.facts.capacity.experiment import Table
from incomes_plugin.facts.capacity.report import markdown as as_markdown
from incomes_plugin.facts.check.advice import Advice, advice_lines, advise, best_line, best_of, shape_of
from incomes_plugin.facts.check.dictionary import Entry
from incomes_plugin.facts.check.keys import Asker
from incomes_plugin.facts.check.memories import check_memories, keys_of
from incomes_plugin.facts.check.outcome import Outcome
from incomes_plugin.facts.check.pool import check_pool
from incomes_plugin.facts.check.questions import questions_about
from incomes_plugin.facts.plan.memory import MeasuredKeys
from incomes_plugin.progress import Stages

SAMPLE = 1000
"""Stored questions from whose keys the memory's recall is foreseen."""

HEADER = (
    "memory", "asked", "recall", "wrong", "abstained", "rephrased", "foreign answered", "unrelated fire",
    "old facts before", "old facts after", "new facts", "KiB",
)  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """All rows, and the advice.

    Attributes:
        key_width, value_width: E and U of the memories.
    """

    outcomes: Sequence[Outcome]
    advice: Advice
    key_width: int
    value_width: int

    @property
    def lines(self) -> list[str]:
        """The advice."""
        return [*advice_lines(self.advice, self.key_width, self.value_width), best_line(best_of(self.outcomes))]


def check(entries: Sequence[Entry], model_dir: Path, *, value_width: int, ask: int, progress: Stages) -> Checked:
    """Measure.

    Args:
        value_width: U of the memories.
        ask: questions of each kind for the gist pool, which generates its answers.
    """
    progress("facts", 0, 3)
    asker, questions = Asker(model_dir), questions_about(entries)
    progress("facts", 1, 3)
    raw = keys_of(asker, questions)
    outcomes = check_memories(asker, entries, raw, value_width)
    measured = MeasuredKeys(asker.whitening(raw.stored[:SAMPLE]))
    progress("facts", 2, 3)
    outcomes = [*outcomes, check_pool(asker, entries, questions, ask)]
    progress("facts", 3, 3)
    return Checked(outcomes, advise(shape_of(entries), measured, value_width), asker.width, value_width)


def table(checked: Checked) -> Table:
    """One row a memory."""
    return Table(HEADER, [_row(outcome) for outcome in checked.outcomes])


def document(checked: Checked, where: dict[str, object]) -> dict[str, Any]:
    """For machines."""
    return {**where, "outcomes": [asdict(outcome) for outcome in checked.outcomes], "advice": asdict(checked.advice)}


def markdown(checked: Checked, where: dict[str, Any]) -> str:
    """For people."""
    origin = f"`{where['command']}` on {where['date']}, commit {where['commit']}, {where['machine']['cpu']}."
    advice = "\n".join(f"* {line}" for line in checked.lines)
    return f"# A dictionary in every memory\n\n{origin}\n\n{as_markdown(table(checked))}\n\n{advice}\n"


def _row(outcome: Outcome) -> list[str]:
    shares = (
        outcome.recall, outcome.wrong, outcome.abstained, outcome.rephrased, outcome.foreign, outcome.fires,
        outcome.old_before, outcome.old_after, outcome.new_after,
    )  # fmt: skip
    figures = ["–" if share is None else f"{share:.1%}" for share in shares]
    return [outcome.name, f"{outcome.asked:,}", *figures, f"{outcome.num_bytes / 1024:,.0f}"]
