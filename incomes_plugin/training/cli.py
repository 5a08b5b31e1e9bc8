"""`incomes train`: options in, a run folder out. Resumes when the folder holds a state."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import torch
import typer

from incomes_plugin.errors import InvalidValue
from incomes_plugin.training.frozen.recipe import FrozenRecipe
from incomes_plugin.training.frozen.run import FrozenRun
from incomes_plugin.training.loop import Run
from incomes_plugin.training.paper.recipe import PaperRecipe
from incomes_plugin.training.paper.run import PaperRun
from incomes_plugin.training.reading.recipe import ReadingRecipe
from incomes_plugin.training.reading.run import ReadingRun
from incomes_plugin.training.recipe import SIZES, Recipe
from incomes_plugin.training.run import DEVICES, RunOptions, TrainingRun

app = typer.Typer(help="Train an edit-capable model.", add_completion=False)
AnyRecipe = TypeVar("AnyRecipe", Recipe, PaperRecipe, FrozenRecipe, ReadingRecipe)


class Tune(StrEnum):
    """What is trained."""

    SCRATCH = "scratch"
    FULL = "full"
    ADAPTER = "adapter"
    READING = "reading"

    @property
    def meaning(self) -> str:
        """One line for `--help`."""
        return {
            Tune.SCRATCH: "a new model",
            Tune.FULL: "all weights of --base, by the paper's recipe",
            Tune.ADAPTER: "an edit adapter on --base, which stays as it is",
            Tune.READING: "layers that read the prompt, on an edit-capable --base, whose gists stay as they are",
        }[self]


@app.callback(invoke_without_command=True)
def train(
    out: Annotated[Path, typer.Option(help="Run folder; an existing run is resumed.")],
    tune: Annotated[
        Tune, typer.Option(help="; ".join(f"{tune}: {tune.meaning}" for tune in Tune) + ".")
    ] = Tune.SCRATCH,
    base: Annotated[Path | None, typer.Option(help="Checkpoint folder to start from (full, adapter, reading).")] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder; without it only invented facts are used.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time.", min=0.01)] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps, instead of a time.", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.", min=0)] = None,
    edits_per_batch: Annotated[int | None, typer.Option(help="Edits of one step.", min=4)] = None,
    size: Annotated[str | None, typer.Option(help=f"{' or '.join(SIZES)} (scratch).")] = None,
    layers: Annotated[int | None, typer.Option(help="Decoder layers (scratch); new layers (reading).", min=1)] = None,
    gist_layers: Annotated[int | None, typer.Option(help="How many last layers read gists.", min=1)] = None,
    max_gists: Annotated[int | None, typer.Option(help="Gist tokens (scratch, adapter).", min=2)] = None,
    seed: Annotated[int | None, typer.Option(help="Draws weights and batches.")] = None,
    grow_from: Annotated[
        Path | None, typer.Option(help="Start from an edit-capable model (scratch) or its reading layers (reading).")
    ] = None,
    device: Annotated[str, typer.Option(help=f"{', '.join(DEVICES)}.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    checkpoint_seconds: Annotated[float, typer.Option(help="Seconds between checkpoints.", min=1)] = 180.0,
    evaluate_every: Annotated[int, typer.Option(help="Steps between held-out evaluations.", min=1)] = 500,
) -> None:
    """Train; prints losses and time left; leaves `OUT/model`, `curves.csv` and `curves.png`."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    options = RunOptions(out, data, checkpoint_seconds, evaluate_every, grow_from, device, base)
    given = {
        "minutes": minutes, "steps": steps, "learning_rate": learning_rate, "edits_per_batch": edits_per_batch,
        "num_layers": layers, "gist_layers": gist_layers, "max_gists": max_gists, "seed": seed, "size": size,
        "grow_from": grow_from,
    }  # fmt: skip
    _train(make_run(tune, options, {name: value for name, value in given.items() if value is not None}))


def make_run(tune: Tune, options: RunOptions, given: Mapping[str, object]) -> TrainingRun:
    """The run that these options describe.

    Args:
        given: options the user gave, by the names of the recipe's fields.

    Raises:
        InvalidValue: an option that `tune` has no use for.
    """
    settings = {name: value for name, value in given.items() if name != "grow_from"}
    if tune is Tune.SCRATCH:
        if options.base is not None:
            raise InvalidValue(
                "--base is for the other recipes; --grow-from starts from an edit-capable model", param="base"
            )
        size = str(settings.pop("size", "small"))
        if size not in SIZES:
            raise InvalidValue(f"no size {size!r}; there are {', '.join(SIZES)}", param="size")
        return Run(_changed(Recipe(), {**SIZES[size], **settings}, tune), options)
    if tune is Tune.READING:
        return ReadingRun(_changed(ReadingRecipe(), settings, tune), options)
    if options.grow_from is not None:
        raise InvalidValue("--grow-from is for --tune scratch and reading", param="grow_from")
    if tune is Tune.ADAPTER:
        return FrozenRun(_changed(FrozenRecipe(), settings, tune), options)
    if "edits_per_batch" in settings:
        settings["samples"] = settings.pop("edits_per_batch")
    return PaperRun(_changed(PaperRecipe(), settings, tune), options)


def _changed(recipe: AnyRecipe, settings: Mapping[str, object], tune: Tune) -> AnyRecipe:
    known = {field.name for field in fields(recipe)}
    foreign = sorted(set(settings) - known)
    if foreign:
        raise InvalidValue(f"--tune {tune} has no {', '.join(foreign)}", param=foreign[0])
    return replace(recipe, **settings)  # type: ignore[arg-type]


def _train(run: TrainingRun) -> None:
    result = run.train()
    if not run.accelerator.is_main_process:
        return
    typer.echo(
        f"held-out exact match {100 * result.success:.1f} % of {result.asked} at {result.edits} edits, "
        f"unknown refused {100 * result.unknown:.1f} %, {result.bytes_per_edit:.0f} bytes per edit; "
        f"model in {run.model_dir}"
    )
