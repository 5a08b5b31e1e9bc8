"""A run's `curves.csv` as a picture: losses on a logarithmic axis above, shares below."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

logger = logging.getLogger("incomes.training")

_NO_CURVES = ("step", "time")


def draw_curves(curves: Path, png: Path) -> bool:
    """Draw every column of `curves`; False (and a warning) without matplotlib or without rows."""
    if not curves.is_file():
        return False
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        logger.warning("no %s: pip install matplotlib", png.name)
        return False
    with curves.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return False
    figure = Figure(figsize=(8, 7))
    losses, shares = figure.subplots(2, 1, sharex=True)
    steps = [int(row["step"]) for row in rows]
    for name in (n for n in rows[0] if n not in _NO_CURVES):
        axes = shares if name.endswith("_accuracy") else losses
        axes.plot(steps, [float(row[name]) for row in rows], label=name.replace("_", " "), linewidth=1)
    losses.set(ylabel="loss (nats)", yscale="symlog")
    shares.set(ylabel="share", xlabel="step", ylim=(-0.02, 1.02))
    for axes in (losses, shares):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    figure.savefig(png, dpi=120, bbox_inches="tight")
    return True
