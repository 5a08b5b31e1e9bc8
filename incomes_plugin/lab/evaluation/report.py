"""Results -> JSON for machines, Markdown for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.evaluation.metrics import MEANS, STRICT, Metrics, Outcome, Share


@dataclass(frozen=True)
class CellFacts:
    """What was run, beside where (`lab/provenance.py`).

    Attributes:
        edits, edits_active: asked for, and had; `edits_filled` of them come from other sets; `edits_refused` are too
            long for the model.
        seeds: of all draws, where the cell joins several.
        contradicting, overruled: see `selection.Selection`.
    """

    method: str
    data: str
    split: str | None
    seed: int
    edits: int
    edits_active: int
    edits_filled: int
    edits_refused: int
    records_asked: int
    records_left_out: int
    questions: int
    contradicting: int
    overruled: int
    max_answer_tokens: int
    bytes_per_edit: int | None
    prepare_s: float
    ask_s: float
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Failure:
    """An answer that was wrong, or not the base's where it should have been.

    Attributes:
        expected: the right answer, or what the base says without edits.
        read: texts of the edits that were read.
    """

    type: str
    question: str
    expected: str
    got: str
    read: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One method on one data set with one number of edits."""

    metrics: Metrics
    facts: CellFacts
    failures: tuple[Failure, ...] = ()


def failure(outcome: Outcome, edit_texts: Sequence[str]) -> Failure:
    """What to show of a wrong answer."""
    question, answer, plain = outcome.question, outcome.answer, outcome.without_edits
    expected = plain.text if plain is not None else " + ".join([*question.answers[:1], *question.also[:1]])
    return Failure(question.type, question.prompt, expected, answer.text, tuple(edit_texts[i] for i in answer.applied))


def document(cells: Sequence[Cell], head: dict[str, Any]) -> dict[str, Any]:
    """The JSON document: where it comes from, and one entry a cell."""
    return head | {"cells": [asdict(cell) for cell in cells]}


def write(cells: Sequence[Cell], head: dict[str, Any], path: Path) -> None:
    """Write `path` (JSON) and the page beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document(cells, head), indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(markdown(cells, head))


def read_cells(path: Path) -> list[Cell]:
    """Cells of a JSON document.

    Raises:
        InvalidValue: not a file that `incomes eval` wrote.
    """
    try:
        return [
            Cell(
                {name: Share(**share) for name, share in cell["metrics"].items()},
                CellFacts(**cell["facts"]),
                tuple(Failure(**{**wrong, "read": tuple(wrong["read"])}) for wrong in cell["failures"]),
            )
            for cell in json.loads(path.read_text())["cells"]
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidValue(f"{path} is no result of `incomes eval`: {error!r}", param="results") from error


def markdown(cells: Sequence[Cell], head: dict[str, Any]) -> str:
    """A page: where it comes from, one table for each data set and number of edits, methods across."""
    machine = head["machine"]
    parts = [
        "# How well edits hold",
        f"`{head['command']}` on {head['date']}, commit {head['commit']}; {machine['cpu']}, {machine['cores']} cores.\n"
        f"Base {head['base']}, adapter {head['adapter']}, {head['fingerprint']}, {head['backend']} backend.\n"
        "Per cent, in brackets the 95 % interval and the number of questions. Right: the answer says what is expected.",
    ]
    for own in grouped(cells):
        parts += [f"## {heading(own)}", table(own)]
    wrong = [(cell.facts, one) for cell in cells for one in cell.failures]
    if wrong:
        rows = [[f.data, f.method, w.type, w.question, w.expected, w.got] for f, w in wrong]
        parts += ["## Wrong answers", grid(["data", "method", "type", "question", "expected", "got"], rows)]
    return "\n\n".join(parts) + "\n"


def grouped(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells of one table together: one data set and number of edits, each method's draws joined into one cell."""
    found: dict[tuple[str, int], dict[str, list[Cell]]] = {}
    for cell in cells:
        facts = cell.facts
        found.setdefault((facts.data, facts.edits), {}).setdefault(facts.method, []).append(cell)
    return [[joined(draws) for draws in methods.values()] for methods in found.values()]


def _seeds(facts: CellFacts) -> str:
    return ", ".join(map(str, facts.seeds or (facts.seed,)))


def joined(draws: Sequence[Cell]) -> Cell:
    """Several draws as one cell: their outcomes counted together; facts are the first draw's, its seconds the sum."""
    if len(draws) == 1:
        return draws[0]
    names = dict.fromkeys(name for cell in draws for name in cell.metrics)
    metrics = {
        name: (Share.means_together if name in MEANS else Share.together)(
            [cell.metrics[name] for cell in draws if name in cell.metrics]
        )
        for name in names
    }
    facts = replace(
        draws[0].facts,
        prepare_s=sum(cell.facts.prepare_s for cell in draws), ask_s=sum(cell.facts.ask_s for cell in draws),
        seeds=tuple(cell.facts.seed for cell in draws),
    )  # fmt: skip
    return Cell(metrics, facts)


def heading(cells: Sequence[Cell]) -> str:
    """What the cells of one table share."""
    facts = cells[0].facts
    notes = [f"{facts.edits_active:,} edits active"]
    notes += [f"{facts.edits_filled:,} of them from other sets"] if facts.edits_filled else []
    notes += [f"{facts.edits:,} asked for"] if facts.edits != facts.edits_active else []
    return f"{facts.data}: {', '.join(notes)}; seed {_seeds(facts)}"


def table(cells: Sequence[Cell]) -> str:
    """Metrics down, methods across; strict figures and seconds at the end."""
    names = list(dict.fromkeys(name for cell in cells for name in cell.metrics))
    names.sort(key=lambda name: name.endswith(STRICT))
    rows = [[name, *(figure(name, cell.metrics.get(name)) for cell in cells)] for name in names]
    rows.append(["bytes per edit", *(f"{c.facts.bytes_per_edit:,}" if c.facts.bytes_per_edit else "–" for c in cells)])
    rows.append(["seconds to take in / to ask", *(f"{c.facts.prepare_s:.0f} / {c.facts.ask_s:.0f}" for c in cells)])
    return grid(["", *(cell.facts.method for cell in cells)], rows)


def figure(name: str, share: Share | None) -> str:
    """A share in per cent, a mean as it is."""
    if share is None:
        return "–"
    if name in MEANS:
        return f"{share.value:.0f}"
    return f"{100 * share.value:.1f} [{100 * share.ci_low:.0f}–{100 * share.ci_high:.0f}; {share.n:,}]"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; no text breaks it."""
    lines = [head, ["---"] * len(head), *([" ".join(c.replace("|", "\\|").split()) for c in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
