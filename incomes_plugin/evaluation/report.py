"""Results -> JSON for machines, Markdown for a pull request, a table for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from incomes_plugin.errors import InvalidValue
from incomes_plugin.evaluation.metrics import Metrics, Outcome, Share

OTHER_RULES = ("_strict", "_match")


@dataclass(frozen=True)
class RunFacts:
    """What was run, beside where (`provenance.py`).

    Attributes:
        edits, edits_active, edits_refused: asked for, had by the data, too long for the model.
        contradicting, overruled: see `selection.Selection`.
        judged: `strict` or `match`: what the metrics without suffix mean.
    """

    model: str
    fingerprint: str
    method: str
    backend: str
    data: str
    source: str
    split: str | None
    seed: int
    edits: int
    edits_active: int
    edits_refused: int
    records_asked: int
    questions: int
    contradicting: int
    overruled: int
    judged: str
    max_answer_tokens: int
    bytes_per_edit: int | None
    prepare_s: float
    ask_s: float


@dataclass(frozen=True)
class Failure:
    """An answer that was wrong."""

    type: str
    question: str
    expected: str
    got: str
    attributed: str | None


def failure(outcome: Outcome, edit_texts: Sequence[str]) -> Failure:
    """What to show of a wrong answer."""
    question, answer = outcome.question, outcome.answer
    named = None if answer.attributed is None else edit_texts[answer.attributed]
    return Failure(question.type, question.prompt, question.answers[0], answer.text, named)


def document(metrics: Metrics, facts: RunFacts, provenance: dict[str, object], failures: Sequence[Failure]) -> dict:
    """The JSON document: one key a metric; keys with an underscore are about the run."""
    found: dict[str, Any] = {name: asdict(share) for name, share in metrics.items()}
    found["_run"] = asdict(facts) | provenance
    if failures:
        found["_failures"] = [asdict(wrong) for wrong in failures]
    return found


def read_document(path: Path) -> tuple[Metrics, dict[str, Any]]:
    """Metrics and run of a JSON document.

    Raises:
        InvalidValue: not a file that `incomes eval --json` wrote.
    """
    try:
        found = json.loads(path.read_text())
        metrics = {name: Share(**value) for name, value in found.items() if not name.startswith("_")}
        return metrics, dict(found["_run"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidValue(f"{path} is no result of `incomes eval --json`: {error}", param="results") from error


def terminal_table(metrics: Metrics) -> Table:
    """The headline metrics."""
    table = Table("metric", "value", "95 % interval", "n", box=None, pad_edge=False)
    for row in _rows(metrics):
        table.add_row(*row)
    return table


def markdown(metrics: Metrics, facts: RunFacts, provenance: dict[str, object], failures: Sequence[Failure]) -> str:
    """A page: what was run, the table, some failures."""
    lines = [f"# {headline(facts)}", "", f"`{provenance['command']}` on {provenance['date']}, ", ""]
    lines[2] += f"commit {provenance['commit']}, model {facts.fingerprint}, seed {facts.seed}, judged: {facts.judged}."
    lines += ["| metric | value | 95 % interval | n |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(metrics)]
    if failures:
        lines += ["", "## Wrong answers", "", "| type | question | expected | got |", "|---|---|---|---|"]
        lines += [f"| {w.type} | {_cell(w.question)} | {_cell(w.expected)} | {_cell(w.got)} |" for w in failures]
    return "\n".join(lines) + "\n"


def headline(facts: RunFacts) -> str:
    """One line for people."""
    fewer = "" if facts.edits_active == facts.edits else f" (of {facts.edits:,} asked for: the data has no more)"
    refused = f", {facts.edits_refused:,} of them too long for the model" if facts.edits_refused else ""
    return (
        f"{facts.method} on {facts.data}: {facts.edits_active:,} edits active{fewer}{refused}, {facts.backend} backend"
    )


def _rows(metrics: Metrics) -> list[tuple[str, str, str, str]]:
    shown = {name: share for name, share in metrics.items() if not name.endswith(OTHER_RULES)}
    return [(name, *_figures(name, share), f"{share.n:,}") for name, share in shown.items()]


def _figures(name: str, share: Share) -> tuple[str, str]:
    if name == "prompt_tokens_mean":
        return f"{share.value:.1f}", f"{share.ci_low:.1f} – {share.ci_high:.1f}"
    return f"{100 * share.value:.1f} %", f"{100 * share.ci_low:.1f} – {100 * share.ci_high:.1f} %"


def _cell(text: str) -> str:
    """Text that cannot break a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())
