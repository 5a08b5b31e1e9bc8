"""`incomes eval` and `incomes eval-plot`: options in; JSON, Markdown and a picture out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.evaluation.backends.start import Backend, start_generator
from incomes_plugin.lab.evaluation.datasets import BUILT_IN, data_dir_of
from incomes_plugin.lab.evaluation.interface import EvalEdit, EvalSettings, Generator
from incomes_plugin.lab.evaluation.methods import METHODS
from incomes_plugin.lab.evaluation.plot import curves, draw
from incomes_plugin.lab.evaluation.report import Cell, grouped, heading, read_cells, table, write
from incomes_plugin.lab.evaluation.run import ORACLE, TYPES, RunOptions, Session, Workload
from incomes_plugin.lab.progress import stages
from incomes_plugin.lab.provenance import provenance
from incomes_plugin.model.resolve import Served, resolve

app = typer.Typer(help="Measure how well edits hold when the answer is generated.", add_completion=False)
plot_app = typer.Typer(help="Plot a metric against the number of active edits.", add_completion=False)
out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, stderr=True)


@app.command()
def evaluate(
    data: Annotated[
        list[str], typer.Option(help=f"Files, names in the data folder, or {', '.join(BUILT_IN)}; commas or repeated.")
    ],
    model: Annotated[
        str, typer.Option(help="Base: default, a folder, a hub id; or a folder of `incomes adapt`.")
    ] = "default",
    adapter: Annotated[str | None, typer.Option(help="Its edit adapter; the packaged one by default.")] = None,
    split: Annotated[str, typer.Option(help="Split of named data sets.")] = RunOptions.split,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with edits/, text/ and archives (INCOMES_DATA).")
    ] = None,
    edits: Annotated[list[str], typer.Option(help="Edits active at once; commas or repeated.")] = ["100"],  # noqa: B006
    limit: Annotated[int, typer.Option(help="Records that are asked about.", min=1)] = RunOptions.limit,
    left_out: Annotated[
        int, typer.Option(help="Records asked about whose edits are not there.", min=0)
    ] = RunOptions.left_out,
    seeds: Annotated[
        list[str], typer.Option("--seed", help="Draws edits and questions; commas or repeated for several draws.")
    ] = ["0"],  # noqa: B006
    methods: Annotated[list[str], typer.Option(help=f"{', '.join(METHODS)}; commas or repeated.")] = ["ours"],  # noqa: B006
    ask: Annotated[list[str], typer.Option(help=f"What is asked: {', '.join(TYPES)}; commas or repeated.")] = [*TYPES],  # noqa: B006
    backend: Annotated[Backend, typer.Option(help="vllm: the engine; hf: the reference, slow.")] = Backend.VLLM,
    max_answer_tokens: Annotated[int, typer.Option(min=1)] = RunOptions.max_answer_tokens,
    max_context_tokens: Annotated[int, typer.Option(min=16, help="At most the base's positions.")] = 8192,
    dtype: Annotated[str, typer.Option(help="Of the vllm backend.")] = "auto",
    failures: Annotated[int, typer.Option(help="Wrong answers to keep of each cell.", min=0)] = 0,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Write results here (.json), and a page beside it.")
    ] = None,
) -> None:
    """Make N edits active, ask about some of them, and judge the greedy answers: for every set, N, seed, method."""
    names, kinds = _known(methods, METHODS, "methods"), _known(ask, TYPES, "ask")
    options = RunOptions(
        "", data_dir_of(data_dir), split, limit=limit, left_out=left_out,
        max_answer_tokens=max_answer_tokens, types=kinds, failures=failures,
    )  # fmt: skip
    work = [
        Workload.draw(replace(options, data=name, edits=number, seed=seed))
        for name in _split(data) for number in _numbers(edits) for seed in _numbers(seeds, "seed", least=0)
    ]  # fmt: skip
    where = provenance(shlex.join(["incomes", "eval", *sys.argv[2:]]))
    served = resolve(model, adapter)
    largest: Sequence[EvalEdit] = max((w.selection.edits for w in work), key=len) if "ours" in names else ()
    settings = EvalSettings(work[0].options.seed, max_answer_tokens)
    with (
        stages(err) as progress,
        start_generator(
            backend, served, largest=largest, max_context_tokens=max_context_tokens, dtype=dtype
        ) as generator,
    ):
        head = where | _head(served, generator, backend)
        cells: list[Cell] = []
        for cell in _cells(Session(generator, settings, progress), work, names):
            cells.append(cell)
            if out_file:
                write(cells, head, out_file)
    for own in grouped(cells):
        out.print(f"{heading(own)}\n\n{table(own)}\n", markup=False)


@plot_app.command()
def plot(
    results: Annotated[list[Path], typer.Argument(help="Files written by `incomes eval --out`.")],
    png: Annotated[Path, typer.Option(help="Write the plot here.")],
    metric: Annotated[str, typer.Option(help="Which metric.")] = "reliability",
) -> None:
    """One line for every method and data set."""
    draw(curves([cell for path in results for cell in read_cells(path)], metric), metric, png)
    out.print(f"wrote {png}", markup=False)


def _cells(session: Session, work: Sequence[Workload], methods: Sequence[str]) -> Iterator[Cell]:
    for workload in work:
        questions = session.questions(workload)
        for method in sorted(methods, key=lambda name: name != ORACLE):
            cell = session.cell(method, workload, questions)
            facts = cell.facts
            err.print(
                f"{method} on {facts.data}, {facts.edits_active:,} edits: {facts.questions:,} questions, "
                f"{facts.prepare_s:.0f} + {facts.ask_s:.0f} s",
                markup=False,
            )
            yield cell


def _head(served: Served, generator: Generator, backend: Backend) -> dict[str, Any]:
    """Which model was asked."""
    return {
        "base": served.base_dir.name,
        "adapter": served.adapter_dir.name,
        "fingerprint": generator.fingerprint,
        "backend": backend.value,
    }


def _split(values: Sequence[str]) -> list[str]:
    return [part for value in values for part in value.replace(",", " ").split()]


def _known(values: Sequence[str], allowed: Sequence[str] | dict[str, Any], param: str) -> tuple[str, ...]:
    """The names, in order. Raises InvalidValue for one that is not allowed."""
    names = tuple(dict.fromkeys(_split(values)))
    for name in names:
        if name not in allowed:
            raise InvalidValue(f"--{param}: there is no {name!r}; there are {', '.join(allowed)}", param=param)
    return names


def _numbers(values: Sequence[str], param: str = "edits", least: int = 1) -> list[int]:
    """Whole numbers, in order. Raises InvalidValue."""
    parts = _split(values)
    if not parts or any(not part.isdecimal() or int(part) < least for part in parts):
        raise InvalidValue(f"--{param}: {values!r} are no numbers from {least} on", param=param)
    return sorted({int(part) for part in parts})
