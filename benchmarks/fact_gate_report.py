"""fact-gate.json -> fact-gate.md: the same figures as tables, for people."""

from __future__ import annotations

from typing import Any

from benchmarks.report import spread, table


def markdown(result: dict[str, Any]) -> str:
    """The whole report."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = [
        "# The fact gate against a search of all entries",
        "",
        f"`{result['command']}` on {result['date']}, commit {result['commit']}.",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; load before the run "
        f"{machine['load_before']}.",
        f"{versions}.",
        "",
        f"Memory for {result['fact_gate_entries']:,} entries: {result['units']} units, {result['winners']} read. "
        "Default model, held-out invented facts; 95 % intervals. Times: medians, smallest and largest of "
        "the runs; a ratio compares runs of one round.",
    ]
    parts = ["\n".join(lines), quality(result), times(result)]
    return "\n\n".join(parts) + "\n"


def quality(result: dict[str, Any]) -> str:
    """What is found and what is answered."""
    head = ["edits", "", "recall@8, first token", "later tokens", "false fire, 247 prompts", "their tokens"]
    head += ["false fire, fresh prompts", "success", "unrelated changed"]
    rows = []
    for size, figures in result["sizes"].items():
        for name in ("exact", "gate"):
            recall, fire = figures["recall_at_8"][name], figures["false_fire"][name]
            cells = [recall["first_token"], recall["later_tokens"], fire["unrelated"]["prompts"]]
            cells += [fire["unrelated"]["tokens"], fire["fresh"]["prompts"], figures["success"][name]]
            cells += [figures["unrelated_changed"][name]]
            rows.append([f"{int(size):,}", name, *map(percent, cells)])
    notes = [
        f"- {int(size):,} edits, {f['entries']:,} entries: success with the gate {f['success_difference_points']:+} "
        f"points, {f['answers_that_differ']} of {f['answers']} answers differ; {f['not_read_back']} entries did not "
        f"read back, {f['unit_full']} found their unit full; memory {f['memory_bytes']:,} bytes, keys "
        f"{f['key_bytes']:,}"
        for size, f in result["sizes"].items()
    ]
    return f"## Quality\n\n{table(head, rows)}\n\n" + "\n".join(notes)


def times(result: dict[str, Any]) -> str:
    """Milliseconds a token."""
    rows = []
    for size, figures in result["sizes"].items():
        for label, row in figures["time"].items():
            cells = [spread(row[name], "{:.2f}") for name in ("none", "exact", "gate")]
            rows.append([f"{int(size):,}", label, *cells, spread(row["ratio"], "{:.2f}")])
        for tokens, row in figures["search_ms"].items():
            cells = [spread(row[name], "{:.2f}") for name in ("exact", "gate")]
            label = f"picking alone, {tokens} (processor ms for all)"
            rows.append([f"{int(size):,}", label, "", *cells, spread(row["ratio"], "{:.2f}")])
    head = ["edits", "ms a token", "no edits", "exact", "gate", "gate / exact"]
    return f"## Time\n\n{table(head, rows)}"


def percent(value: dict[str, float]) -> str:
    """`99.3 % (98.1-99.8)`."""
    return f"{100 * value['value']:.1f} % ({100 * value['ci_low']:.1f}–{100 * value['ci_high']:.1f})"
