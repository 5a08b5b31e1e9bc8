"""What a run leaves beside the adapter: a model card, the losses as JSON, and a picture of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from incomes_plugin.model.adapter import EditAdapter

if TYPE_CHECKING:
    from incomes_plugin.lab.adapt.options import AdaptOptions, AdaptRecord

CARD, CURVES, PICTURE = "README.md", "curves.json", "curves.png"
_WINDOW = 20


def write_card(options: AdaptOptions, record: AdaptRecord, adapter: EditAdapter) -> None:
    """Write card, curves and picture into the adapter's folder."""
    options.out.mkdir(parents=True, exist_ok=True)
    smooth = {part: _smoothed(losses) for part, losses in record.losses.items()}
    (options.out / CURVES).write_text(json.dumps({"window": _WINDOW, "losses": smooth, **asdict_of(record)}) + "\n")
    (options.out / CARD).write_text(_card(options, record, adapter))
    _draw(smooth, options.out / PICTURE)


def asdict_of(record: AdaptRecord) -> dict[str, object]:
    """The record without its raw losses."""
    return {name: value for name, value in asdict(record).items() if name != "losses"}


def _smoothed(losses: Sequence[float]) -> list[float]:
    parts = [losses[start : start + _WINDOW] for start in range(0, len(losses), _WINDOW)]
    return [round(sum(part) / len(part), 4) for part in parts]


def _card(options: AdaptOptions, record: AdaptRecord, adapter: EditAdapter) -> str:
    shape = adapter.shape
    sources = "invented facts" + (", published edits and prompts (docs/adapt.md lists them)" if options.data else "")
    seconds = "\n".join(f"| {stage} | {time_s:.0f} s |" for stage, time_s in record.seconds.items())
    return f"""# Edit adapter for {adapter.base.name}

Makes the frozen base take edits; the base's own files are untouched. Base fingerprint `{adapter.base.fingerprint}`.

| | |
|---|---|
| features from layers | {", ".join(map(str, shape.feature_layers))} |
| layers that read | {", ".join(map(str, shape.layers))} |
| kept of a token's keys and values | {shape.latent_dim} of {shape.read_dim:,} numbers, 8 bits |
| bytes a token of an edit | {shape.bytes_per_token:,} |
| cover, threshold, growth | {adapter.rules.cover}, {adapter.rules.threshold}, {adapter.rules.growth} |
| rivalry, conflict | {adapter.rules.rivalry}, {adapter.rules.conflict} |
| margin | {adapter.rules.margin} |
| open, onward, led | {adapter.rules.open}, {adapter.rules.onward}, {adapter.rules.led} |
| learned from | {sources}: {record.counts} |
| seed, scale | {options.seed}, {options.scale} |

How well it does is measured through the engine: `incomes eval --adapter DIR`.

| stage | time |
|---|---|
{seconds}
"""


def _draw(losses: dict[str, list[float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    for place, (part, values) in enumerate(losses.items(), 1):
        axes = figure.add_subplot(1, max(1, len(losses)), place)
        axes.plot([_WINDOW * (i + 1) for i in range(len(values))], values)
        axes.set(title=part, xlabel="step", yscale="log")
    figure.savefig(path, dpi=110)
