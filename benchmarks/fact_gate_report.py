"""fact-gate.json -> fact-gate.md: the same figures as tables, for people. Parts that were not run are left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.report import spread, table

SIDES = ("exact", "gate")
SILENT = {
    "unrelated": "unrelated prompts that read",
    "everyday": "everyday ones",
    "asked_by_people": "questions people asked",
}
"""Kinds of prompts that no edit is about, and the heads of their columns."""

SPREAD = "Medians; in brackets the smallest and largest round. A ratio compares runs of one round, neighbours in time."


def markdown(result: dict[str, Any]) -> str:
    """The whole report."""
    parts = [_header(result), _found(result), _served(result), _curve(result), _times(result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(result: dict[str, Any]) -> str:
    machine, setting = result["machine"], result["setting"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return "\n".join(
        [
            "# The fact gate against a search of all entries",
            "",
            f"`{result['command']}` on {result['date']}, commit {result['commit']}.",
            f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; load before the run "
            f"{machine['load_before']}.",
            f"{versions}.",
            "",
            f"Default model, held-out invented facts (seed {setting['seed']}), three questions about each of "
            f"{setting['asked_edits']}; 95 % intervals. Memory for {setting['fact_gate_entries']:,} entries: "
            f"{setting['units']} units, {setting['winners']} read. Exact: all entries are searched, no gate.",
        ]
    )


def _found(result: dict[str, Any]) -> str:
    head = ["edits", "", "recall@8, first token", "later tokens", "first tokens that read", "right edit first too"]
    head += SILENT.values()
    rows, notes = [], []
    for size, figures in _parts(result, "found"):
        for side in SIDES:
            recall, reading = figures["recall_at_8"][side], _at(figures, side, figures["threshold"][side])
            cells = [recall["first_token"], recall["later_tokens"]]
            cells += [reading["first_tokens_read"], reading["right_first_and_read"]]
            rows.append([size, side, *map(percent, cells), *_fires(reading)])
        notes.append(
            f"- {size} edits, {figures['entries']:,} entries: threshold {figures['threshold']['gate']:.4f} with the "
            f"gate, {figures['threshold']['exact']:.4f} without; {figures['not_read_back']} entries did not read back, "
            f"{figures['unit_full']} found their unit full; memory {figures['memory_bytes']:,} bytes, keys "
            f"{figures['key_bytes']:,}"
        )
    return f"## What is found (reference path)\n\n{table(head, rows)}\n\n" + "\n".join(notes) if rows else ""


def _served(result: dict[str, Any]) -> str:
    head = ["edits", "success, exact", "gate", "points", "right with / without gate only", "answers that differ"]
    head += ["unrelated changed, exact", "gate"]
    rows = []
    for size, figures in _parts(result, "served"):
        success, changed = figures["success"], figures["unrelated_changed"]
        rows.append(
            [
                size,
                percent(success["exact"]),
                percent(success["gate"]),
                f"{figures['success_difference_points']:+}",
                f"{figures['right_only_with_gate']} / {figures['right_only_without']}",
                f"{figures['answers_that_differ']} of {figures['answers']:,}",
                percent(changed["exact"]),
                percent(changed["gate"]),
            ]
        )
    return f"## What is answered (vLLM)\n\n{table(head, rows)}" if rows else ""


def _curve(result: dict[str, Any]) -> str:
    """What a stricter gate would cost and save."""
    head = ["edits", "threshold", "first tokens that read", "right edit first too", *SILENT.values()]
    rows = []
    for size, figures in _parts(result, "found"):
        for reading in figures["reading"]["gate"]:
            mark = " (the gate's)" if reading["threshold"] == figures["threshold"]["gate"] else ""
            shares = [reading["first_tokens_read"], reading["right_first_and_read"]]
            rows.append([size, f"{reading['threshold']:.4f}{mark}", *map(percent, shares), *_fires(reading)])
    return f"## Stricter gates\n\n{table(head, rows)}" if rows else ""


def _times(result: dict[str, Any]) -> str:
    served = [
        [size, label, *(spread(row[side], "{:.2f}") for side in ("none", *SIDES)), spread(row["ratio"], "{:.2f}")]
        for size, figures in _parts(result, "time")
        for label, row in figures["ms_a_token"].items()
    ]
    alone = [
        [size, label, *(spread(row[side], "{:.2f}") for side in SIDES), spread(row["ratio"], "{:.2f}")]
        for size, figures in _parts(result, "found")
        for label, row in figures["search_ms"].items()
    ]
    parts = []
    if served:
        head = ["edits", "ms a token", "no edits", *SIDES, "gate / exact"]
        parts.append(f"## Time a token (vLLM, sides in turns)\n\n{SPREAD}\n\n{table(head, served)}")
    if alone:
        head = ["edits", "processor ms for all", *SIDES, "gate / exact"]
        parts.append(f"## Time of picking alone (one thread, keys in bfloat16)\n\n{table(head, alone)}")
    return "\n\n".join(parts)


def _parts(result: dict[str, Any], part: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for size, parts in result["sizes"].items():
        if part in parts:
            yield f"{int(size):,}", parts[part]


def _at(figures: dict[str, Any], side: str, threshold: float) -> dict[str, Any]:
    return next(reading for reading in figures["reading"][side] if reading["threshold"] == threshold)


def _fires(reading: dict[str, Any]) -> list[str]:
    return [percent(reading[kind]["prompts"]) if kind in reading else "–" for kind in SILENT]


def percent(value: dict[str, float]) -> str:
    """`99.3 % (98.1-99.8)`."""
    return f"{100 * value['value']:.1f} % ({100 * value['ci_low']:.1f}–{100 * value['ci_high']:.1f})"
