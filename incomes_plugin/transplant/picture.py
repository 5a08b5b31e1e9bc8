"""The report's picture: lengths of copied and new rows of every matrix, and bits per byte of what was tried."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from incomes_plugin.transplant.checkpoint import Written
from incomes_plugin.transplant.trial import Comparison

logger = logging.getLogger("incomes.transplant")
BINS = 60


def draw(written: Written, bits: Comparison | None, png: Path) -> bool:
    """Draw; False (and a warning) without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        logger.warning("no %s: pip install matplotlib", png.name)
        return False
    panels = len(written.lengths) + (bits is not None)
    figure = Figure(figsize=(6 * panels, 4))
    places: list[Any] = figure.subplots(1, panels, squeeze=False)[0].tolist()
    for axes, (part, groups) in zip(places, written.lengths.items(), strict=False):
        for name, lengths in groups.items():
            axes.hist(lengths.numpy(), bins=BINS, density=True, histtype="step", label=f"{name} ({len(lengths):,})")
        axes.set(title=part, xlabel="length of a row", ylabel="density")
        axes.legend(fontsize="small")
    if bits is not None:
        _draw_bits(places[-1], bits)
    figure.savefig(png, dpi=120, bbox_inches="tight")
    return True


def _draw_bits(axes: Any, bits: Comparison) -> None:
    scores = sorted(bits.scores, key=lambda score: -score.bits_per_byte)
    names = [f"{s.recipe.method} {s.recipe.k or ''}".strip() for s in scores]
    axes.barh([*names, "before"], [*(s.bits_per_byte for s in scores), bits.before])
    axes.set(title=f"{bits.num_bytes:,} bytes of text", xlabel="bits per byte")
