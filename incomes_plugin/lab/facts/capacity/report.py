"""Cells -> the same figures as CSV for machines, Markdown for people, and a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.lab.facts.capacity.experiment import Claim, Experiment, Measurement, Plot, Table


def write_report(experiment: Experiment, cells: Sequence[Measurement], document: dict[str, Any], out: Path) -> None:
    """Write `facts-<name>.csv`, `.md` and `.png`; `document` is what the `.json` holds."""
    stem = out / f"facts-{experiment.name}"
    _write_csv(cells, stem.with_suffix(".csv"))
    checks = checks_table(experiment.checks(cells))
    parts = [
        f"# {experiment.title}",
        f"`{document['command']}` on {document['date']}, commit {document['commit']}, {document['machine']['cpu']}, "
        f"one thread; {sum(cell.cpu_s for cell in cells):.0f} s of CPU time.",
        *([f"## To be shown\n\n{markdown(checks)}"] if checks.rows else []),
        f"## Measured\n\n{markdown(experiment.table(cells))}",
        f"![{experiment.title}]({stem.name}.png)",
    ]
    stem.with_suffix(".md").write_text("\n\n".join(parts) + "\n")
    draw(experiment.plot(cells), stem.with_suffix(".png"))


def checks_table(checks: Sequence[Claim]) -> Table:
    """The checks as a table; one that failed is marked as a miss."""
    rows = [[check.what, check.bound, check.measured, "yes" if check.met else "**missed**"] for check in checks]
    return Table(("", "to be shown", "measured", "holds"), rows)


def markdown(table: Table) -> str:
    """The table in Markdown."""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(plot: Plot, png: Path) -> None:
    """Measured curves with marks, laws dashed.

    Raises:
        UnsupportedEngine: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UnsupportedEngine("plots need matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(7, 4.5))
    axes = figure.subplots()
    for curve in plot.curves:
        style = {"linestyle": "--", "color": "0.6"} if curve.law else {"marker": "o", "markersize": 3}
        axes.plot(*zip(*curve.points, strict=True), label=curve.label, **style)
    for label, level in plot.levels:
        axes.axhline(level, linestyle=":", color="0.4", label=label)
    axes.set(xlabel=plot.x, ylabel=plot.y)
    if plot.logarithmic:
        axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(png, dpi=120, bbox_inches="tight")


def _write_csv(cells: Sequence[Measurement], path: Path) -> None:
    """One line a cell; what is no single value stays in the `.json`."""
    rows = [asdict(cell.job) | asdict(cell.result) | {"cpu_s": cell.cpu_s} for cell in cells]
    if rows:
        names = [name for name, value in rows[0].items() if not isinstance(value, list | tuple)]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
