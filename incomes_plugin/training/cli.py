"""`incomes train`: options in, a run folder out. Resumes when the folder holds a state."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from incomes_plugin.errors import InvalidValue
from incomes_plugin.training.loop import Run
from incomes_plugin.training.recipe import SIZES, Recipe
from incomes_plugin.training.run import DEVICES, RunOptions, TrainingRun

app = typer.Typer(help="Train an edit-capable model.", add_completion=False)


@app.callback(invoke_without_command=True)
def train(
    out: Annotated[Path, typer.Option(help="Run folder; an existing run is resumed.")],
    data: Annotated[Path | None, typer.Option(help="Data folder; without it only invented facts are used.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time.", min=0.01)] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps, instead of a time.", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.", min=0)] = None,
    edits_per_batch: Annotated[int | None, typer.Option(help="Edits of one step.", min=4)] = None,
    size: Annotated[str, typer.Option(help=f"{' or '.join(SIZES)}; --layers and others change parts.")] = "small",
    layers: Annotated[int | None, typer.Option(help="Decoder layers.", min=2)] = None,
    gist_layers: Annotated[int | None, typer.Option(help="Layers that read gists, the last ones.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Draws weights and batches.")] = None,
    grow_from: Annotated[Path | None, typer.Option(help="Start from a smaller edit-capable model.")] = None,
    device: Annotated[str, typer.Option(help=f"{', '.join(DEVICES)}.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    checkpoint_seconds: Annotated[float, typer.Option(help="Seconds between checkpoints.", min=1)] = 180.0,
    evaluate_every: Annotated[int, typer.Option(help="Steps between held-out evaluations.", min=1)] = 500,
) -> None:
    """Train tokenizer and model; prints losses and time left; leaves `OUT/model`, `curves.csv` and `curves.png`."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    options = RunOptions(out, data, checkpoint_seconds, evaluate_every, grow_from, device)
    given = {
        "minutes": minutes, "steps": steps, "learning_rate": learning_rate, "edits_per_batch": edits_per_batch,
        "num_layers": layers, "gist_layers": gist_layers, "seed": seed,
    }  # fmt: skip
    _train(Run(_recipe(size, {name: value for name, value in given.items() if value is not None}), options))


def _recipe(size: str, changes: dict[str, int | float]) -> Recipe:
    if size not in SIZES:
        raise InvalidValue(f"no size {size!r}; there are {', '.join(SIZES)}", param="size")
    return replace(Recipe(), **(SIZES[size] | changes))  # type: ignore[arg-type]


def _train(run: TrainingRun) -> None:
    result = run.train()
    typer.echo(
        f"held-out exact match {100 * result.success:.1f} % of {result.asked} at {result.edits} edits, "
        f"unknown refused {100 * result.unknown:.1f} %, {result.bytes_per_edit:.0f} bytes per edit; "
        f"model in {run.model_dir}"
    )
