"""`incomes train`: train the default model from scratch. Resumes when the run folder holds a state."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import torch
import typer

from incomes_plugin.training.loop import Run, RunOptions
from incomes_plugin.training.recipe import Recipe

app = typer.Typer(help="Train an edit-capable model from scratch.", add_completion=False)


@app.callback(invoke_without_command=True)
def train(
    out: Annotated[Path, typer.Option(help="Run folder; an existing run is resumed.")],
    data: Annotated[Path | None, typer.Option(help="Data folder; without it only invented facts are used.")] = None,
    minutes: Annotated[float, typer.Option(help="Training time.", min=0.1)] = Recipe.minutes,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    checkpoint_seconds: Annotated[float, typer.Option(help="Seconds between checkpoints.", min=1)] = 180.0,
    evaluate_every: Annotated[int, typer.Option(help="Steps between held-out evaluations.", min=1)] = 500,
) -> None:
    """Train tokenizer and model; prints loss, selection accuracy and time left; leaves `OUT/model`."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    options = RunOptions(out, data, checkpoint_s=checkpoint_seconds, evaluate_every=evaluate_every)
    run = Run(Recipe(minutes=minutes), options)
    result = run.train()
    typer.echo(
        f"held-out exact match {100 * result.success:.1f} % of {result.asked} at {result.edits} edits, "
        f"unknown refused {100 * result.unknown:.1f} %, {result.bytes_per_edit:.0f} bytes per edit; "
        f"model in {out / 'model'}"
    )
