"""Success against the number of active edits, from results of `incomes eval --out`, as a PNG."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from incomes_plugin.errors import InvalidValue, UnsupportedEngine
from incomes_plugin.lab.evaluation.metrics import Share
from incomes_plugin.lab.evaluation.report import Cell, grouped

Curves = dict[str, list[tuple[int, Share]]]


def curves(cells: Iterable[Cell], metric: str) -> Curves:
    """Points (N, share) of every method and data set; several draws are one point.

    Raises:
        InvalidValue: no cell has the metric.
    """
    found: Curves = {}
    for cell in (cell for group in grouped(list(cells)) for cell in group):
        if metric in cell.metrics:
            label = f"{cell.facts.method}, {cell.facts.data}"
            found.setdefault(label, []).append((cell.facts.edits_active, cell.metrics[metric]))
    if not found:
        raise InvalidValue(f"no result has the metric {metric!r}", param="metric")
    return {label: sorted(points, key=lambda point: point[0]) for label, points in sorted(found.items())}


def draw(found: Curves, metric: str, png: Path) -> None:
    """One line a curve with its 95 % intervals; N on a logarithmic axis.

    Raises:
        UnsupportedEngine: matplotlib is not installed.
    """
    axes, figure = _axes()
    for label, points in found.items():
        sizes = [size for size, _ in points]
        values = [100 * share.value for _, share in points]
        errors = [
            [max(0.0, 100 * (share.value - share.ci_low)) for _, share in points],
            [max(0.0, 100 * (share.ci_high - share.value)) for _, share in points],
        ]
        axes.errorbar(sizes, values, yerr=errors, marker="o", capsize=3, label=label)
    axes.set(xscale="log", xlabel="edits active at once", ylabel=f"{metric.replace('_', ' ')} (%)", ylim=(-2, 102))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(png, dpi=150, bbox_inches="tight")


def _axes() -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UnsupportedEngine("plots need matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(7, 4.5))
    return figure.subplots(), figure
