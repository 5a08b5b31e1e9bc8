"""gists-per-edit.json -> its table and its picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.report import table

Point = dict[str, Any]
_COLOURS = (
    "tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:gray", "tab:olive",
    "tab:cyan", "black",
)  # fmt: skip
"""One more than the default cycle has."""


def markdown(result: dict[str, Any]) -> str:
    """One table for each number of edits, from many bytes to few within a rule."""
    points: list[Point] = result["points"]
    parts = [_head(result)]
    for edits in sorted({point["edits"] for point in points}):
        rows = [_row(point) for point in points if point["edits"] == edits]
        head = ["kept", "gists/edit", "bytes/edit", "success", "lost / won", "refused"]
        parts.append(f"## {edits:,} edits\n\n{table(head, rows)}")
    return "\n\n".join(parts) + "\n"


def _head(result: dict[str, Any]) -> str:
    machine, asked = result["machine"], result["points"][0]["success"]["n"]
    return (
        "# Success against bytes per edit\n\n"
        f"`{result['command']}` on {result['date']}, commit {result['commit']}; {machine['cpu']}.\n\n"
        f"Model {result['model']['fingerprint']} ({result['model']['selection']} selection), reference path, float32; "
        f"bytes as served in bfloat16. {asked} questions about held-out invented facts over seeds "
        f"{', '.join(map(str, result['seeds']))}; generated exact match in %, in brackets the 95 % interval. "
        "Lost / won: the same questions, against all gists kept. Refused: questions that no edit answers."
    )


def _row(point: Point) -> list[str]:
    return [
        _label(point) if point["rule"] == "answer" and point["least"] else point["name"],
        f"{point['gists_per_edit']:.1f}",
        f"{point['bytes_per_edit']:,}",
        _share(point["success"]),
        f"{point['lost']} / {point['won']}",
        _share(point["refused"]),
    ]


def _share(share: dict[str, float]) -> str:
    value, low, high = (100 * share[name] for name in ("value", "ci_low", "ci_high"))
    return f"{value:.1f} [{low:.1f}–{high:.1f}]"


def draw(result: dict[str, Any], png: Path) -> None:
    """Success against bytes an edit: a panel for each number of edits, a line for each rule."""
    from matplotlib.figure import Figure

    points: list[Point] = result["points"]
    sizes = sorted({point["edits"] for point in points})
    figure = Figure(figsize=(5.5 * len(sizes), 4.5))
    for axes, edits in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
        own = [point for point in points if point["edits"] == edits]
        axes.set_prop_cycle(color=_COLOURS)
        for label, line in _lines(own).items():
            _plot(axes, label, line)
        axes.set(xlabel="bytes per edit (bfloat16)", ylabel="success (%)", ylim=(-2, 102), title=f"{edits:,} edits")
        axes.grid(alpha=0.3)
    figure.axes[-1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.savefig(png, dpi=150, bbox_inches="tight")


def _lines(points: list[Point]) -> dict[str, list[Point]]:
    """Points of a rule by the number of gists or by its threshold; every line of counts ends where all are kept."""
    full = [point for point in points if point["rule"] == "all"]
    found: dict[str, list[Point]] = {}
    for point in points:
        if point["rule"] != "all":
            found.setdefault(_label(point), []).append(point)
    return {label: sorted([*line, *full], key=lambda p: p["bytes_per_edit"]) for label, line in found.items()}


def _label(point: Point) -> str:
    """Name of a line: a rule by the number of gists, or by its threshold."""
    if point["least"] is None:
        return str(point["rule"])
    return "answer and its end" if point["rule"] == "answer" else f"{point['rule']} >= …"


def _plot(axes: Any, label: str, line: list[Point]) -> None:
    values = [100 * point["success"]["value"] for point in line]
    low = [100 * max(0.0, p["success"]["value"] - p["success"]["ci_low"]) for p in line]
    high = [100 * max(0.0, p["success"]["ci_high"] - p["success"]["value"]) for p in line]
    axes.errorbar(
        [point["bytes_per_edit"] for point in line], values, yerr=[low, high], marker="o", capsize=3, label=label
    )
