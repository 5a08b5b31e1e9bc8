"""`incomes verbatim …` and `incomes capacity`: texts that come back to the byte, and what a model's vectors hold."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.facts.capacity.run import run as run_experiment
from incomes_plugin.lab.progress import stages
from incomes_plugin.lab.provenance import provenance
from incomes_plugin.lab.verbatim import run
from incomes_plugin.lab.verbatim.capacity import STEPS, TEXTS, Capacity
from incomes_plugin.lab.verbatim.decode import VllmRecall
from incomes_plugin.lab.verbatim.frozen import FrozenModel
from incomes_plugin.lab.verbatim.planner import VectorCapacity
from incomes_plugin.lab.verbatim.precision import Precision
from incomes_plugin.lab.verbatim.recall import recall as recall_text
from incomes_plugin.lab.verbatim.record import load_record
from incomes_plugin.lab.verbatim.row import CramSettings
from incomes_plugin.lab.verbatim.targets import read_texts
from incomes_plugin.lab.verbatim.worth import ModelItself, document, lines, worth
from incomes_plugin.model.base import resolve_model

app = typer.Typer(help="Texts that come back to the byte, from vectors of the frozen model.", add_completion=False)
capacity_app = typer.Typer(help="How much memory vectors of a model hold.", add_completion=False)
out_console = Console(highlight=False, soft_wrap=True)
err_console = Console(highlight=False, stderr=True)

ModelOption = Annotated[str, typer.Option(help="Base: default, a folder, a hub id.")]
EngineOption = Annotated[str, typer.Option(help="What decodes: vllm, or model (slower, no engine).")]


@app.callback()
def verbatim() -> None:
    """Texts that come back to the byte, from vectors of the frozen model."""


@app.command()
def report(
    file: Annotated[Path, typer.Argument(help="JSONL of objects with text, as for edit import.")],
    capacity: Annotated[Path, typer.Option(help="verbatim-capacity.json that `incomes capacity MODEL` wrote.")],
    model: ModelOption = "default",
    out: Annotated[Path, typer.Option(help="Folder of records, results and the state of the run.")] = Path("verbatim"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that OUT holds.")] = False,
    precision: Annotated[Precision, typer.Option(help="In which vectors are stored.")] = Precision.BFLOAT16,
    margin: Annotated[float, typer.Option(help="Logits by which every token must lead.")] = CramSettings.margin,
    max_steps: Annotated[int, typer.Option(help="At one number of vectors.", min=1)] = CramSettings.max_steps,
    rows: Annotated[int, typer.Option(help="Texts optimised at once.", min=1)] = CramSettings.most_rows,
    low_dim: Annotated[int | None, typer.Option(help="Search in so many directions.", min=1)] = None,
    rho: Annotated[float, typer.Option(help="Share of the capacity that is planned with.")] = VectorCapacity.rho,
    engine: EngineOption = "vllm",
    threads: Annotated[int, typer.Option(help="Of the optimiser.", min=1)] = 1,
) -> None:
    """What vectors are worth for your texts: exact recalls, bytes, context, speed, and when plain text is better."""
    _known(engine)
    torch.set_num_threads(threads)
    texts = read_texts(file)
    frozen = FrozenModel(resolve_model(model), device=_device())
    calibration = VectorCapacity.read(capacity, frozen.origin.model, rho)
    settings = CramSettings(precision=precision, margin=margin, max_steps=max_steps, most_rows=rows, low_dim=low_dim)
    state = out / "state.safetensors"
    if state.exists() and not resume:
        raise InvalidValue(
            f"{state} is the state of a run: --resume goes on with it, another --out begins anew", param="out"
        )
    out.mkdir(parents=True, exist_ok=True)
    with stages(err_console) as progress:
        plans = []
        for number, text in enumerate(texts, 1):
            plans.append(run.plan(frozen, f"text-{number}", text, calibration))
            progress("planning", number, len(texts))
        found = run.cram(frozen, plans, settings, state, progress)
    decoder = _engine(engine, frozen)
    try:
        result = worth(frozen, found, decoder)
    finally:
        if isinstance(decoder, VllmRecall):
            decoder.close()
    exact = {text.name for text in result.texts if text.exact}
    run.write([one for one in found if one.plan.name in exact], out)
    figures = _where("verbatim") | {"model": frozen.folder.name, "engine": engine, "precision": precision.value}
    (out / "report.json").write_text(json.dumps(figures | document(result), indent=1) + "\n")
    _say(lines(result))


@app.command()
def recall(
    record: Annotated[Path, typer.Argument(help="A .safetensors file that report wrote.")],
    model: ModelOption = "default",
    engine: EngineOption = "model",
) -> None:
    """Say the text of a record; every block is checked, and another model or a damaged record is refused."""
    _known(engine)
    if not record.is_file():
        raise InvalidValue(f"there is no file {record}", param="record")
    torch.set_num_threads(1)
    frozen = FrozenModel(resolve_model(model), device=_device())
    found = load_record(record.read_bytes())
    found.require(frozen.origin)
    decoder = _engine(engine, frozen)
    try:
        text = recall_text(found, decoder.decode, frozen.tokenizer, frozen.end_id)
    finally:
        if isinstance(decoder, VllmRecall):
            decoder.close()
    typer.echo(text.encode(), nl=False)  # these bytes and no others, not even a line break


@capacity_app.command()
def capacity(
    model: Annotated[str, typer.Argument(help="Base: default, a folder, a hub id.")] = "default",
    out: Annotated[Path, typer.Option(help="Folder of the results files.")] = Path("verbatim-capacity"),
    texts: Annotated[
        Path | None, typer.Option(help="JSONL of long natural texts of yours; else built-in ones.")
    ] = None,
    per_cell: Annotated[int, typer.Option(help="Texts of each cell.", min=1)] = TEXTS,
    steps: Annotated[int, typer.Option(help="At most so many for each text.", min=1)] = STEPS,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the cells of the results file.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A minute of work that shows that it runs.")] = False,
    threads: Annotated[int, typer.Option(help="Of the optimiser.", min=1)] = 1,
) -> None:
    """Measure what one vector, and K of them, hold; writes verbatim-capacity.json, .csv, .md and .png."""
    torch.set_num_threads(threads)
    frozen = FrozenModel(resolve_model(model), device=_device())
    experiment = Capacity(frozen, None if texts is None else read_texts(texts), per_cell, steps)
    with stages(err_console) as progress:
        cells = run_experiment(
            experiment, out, lambda: _where("capacity"), quick=quick, resume=resume, progress=progress
        )
    for check in experiment.checks(cells):
        out_console.print(f"{'holds ' if check.met else 'MISSED'}  {check.what}: {check.measured}", markup=False)
    out_console.print(f"wrote {out}", markup=False)


def _engine(name: str, model: FrozenModel) -> VllmRecall | ModelItself:
    return VllmRecall(model, max_positions=1024) if name == "vllm" else ModelItself(model)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _known(engine: str) -> None:
    if engine not in ("vllm", "model"):
        raise InvalidValue(f"no engine {engine!r}; there are vllm, model", param="engine")


def _say(found: Iterable[str]) -> None:
    for line in found:
        out_console.print(line, markup=False)


def _where(verb: str) -> dict[str, object]:
    return provenance(shlex.join(["incomes", verb, *sys.argv[2:]]))
