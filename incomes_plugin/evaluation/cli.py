"""`incomes eval` and `incomes eval-plot`: options in; a table, JSON, Markdown and a plot out."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from incomes_plugin.errors import InvalidValue
from incomes_plugin.evaluation.backends.start import Backend, start_generator
from incomes_plugin.evaluation.datasets import BUILT_IN
from incomes_plugin.evaluation.methods import METHODS, POOLED
from incomes_plugin.evaluation.plot import curves, draw
from incomes_plugin.evaluation.provenance import provenance
from incomes_plugin.evaluation.report import Failure, document, headline, markdown, read_document, terminal_table
from incomes_plugin.evaluation.run import RunOptions, RunResult, Workload, run
from incomes_plugin.model import DEFAULT_MODEL_DIR
from incomes_plugin.progress import stages

SHOWN = 120
"""Characters of a question that the terminal shows."""
ALIASES = {"rag": "rag-bm25-5"}

app = typer.Typer(help="Measure how well edits hold when the answer is generated.", add_completion=False)
plot_app = typer.Typer(help="Plot a metric against the number of active edits.", add_completion=False)
out = Console(highlight=False)
err = Console(highlight=False, stderr=True)


@app.command()
def evaluate(
    data: Annotated[
        str, typer.Option(help=f"A .jsonl[.xz] file, a name in the data folder, or {', '.join(BUILT_IN)}.")
    ],
    model: Annotated[Path, typer.Option(help="Edit-capable checkpoint.")] = DEFAULT_MODEL_DIR,
    split: Annotated[str, typer.Option(help="Split of a named data set.")] = RunOptions.split,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of named data sets (INCOMES_DATA).")] = None,
    edits: Annotated[int, typer.Option(help="Edits active at once.", min=1)] = RunOptions.edits,
    limit: Annotated[int, typer.Option(help="Records that are asked about.", min=1)] = RunOptions.limit,
    seed: Annotated[int, typer.Option(help="Draws the edits.")] = RunOptions.seed,
    method: Annotated[str, typer.Option(help=f"{', '.join(METHODS)}; rag = {ALIASES['rag']}.")] = RunOptions.method,
    backend: Annotated[Backend, typer.Option(help="vllm: the product's engine; hf: the reference.")] = Backend.VLLM,
    max_answer_tokens: Annotated[int, typer.Option(min=1)] = RunOptions.max_answer_tokens,
    max_context_tokens: Annotated[int, typer.Option(min=16, help="At most the model's positions.")] = 2048,
    dtype: Annotated[str, typer.Option(help="Of the vllm backend.")] = "auto",
    json_out: Annotated[Path | None, typer.Option("--json", help="Write all metrics here.")] = None,
    markdown_out: Annotated[Path | None, typer.Option("--markdown", help="Write a page here.")] = None,
    failures: Annotated[int, typer.Option(help="Wrong answers to show and to write.", min=0)] = 0,
) -> None:
    """Make N edits active, ask about them, and judge the greedy answers."""
    method = ALIASES.get(method, method)
    if method not in METHODS:
        raise InvalidValue(f"no method {method!r}; there are {', '.join(METHODS)}", param="method")
    options = RunOptions(
        data, model, split, data_dir, edits, limit, seed, method, backend, max_answer_tokens, failures
    )  # fmt: skip
    where = provenance(shlex.join(["incomes", "eval", *sys.argv[2:]]))
    work = Workload.draw(options)
    largest = work.selection.edits if method in POOLED else ()
    with (
        stages(err) as progress,
        start_generator(
            backend, model, largest=largest, max_context_tokens=max_context_tokens, dtype=dtype
        ) as generator,
    ):
        result = run(options, work, generator, progress)
    _show(result)
    if json_out:
        text = json.dumps(document(result.metrics, result.facts, where, result.failures), indent=2, ensure_ascii=False)
        json_out.write_text(text + "\n")
    if markdown_out:
        markdown_out.write_text(markdown(result.metrics, result.facts, where, result.failures))


@plot_app.command()
def plot(
    results: Annotated[list[Path], typer.Argument(help="Files written by `incomes eval --json`.")],
    png: Annotated[Path, typer.Option(help="Write the plot here.")],
    metric: Annotated[str, typer.Option(help="Which metric.")] = "reliability",
) -> None:
    """One line for every method and data set."""
    draw(curves([read_document(path) for path in results], metric), metric, png)
    out.print(f"wrote {png}", markup=False)


def _show(result: RunResult) -> None:
    out.print(headline(result.facts), markup=False)
    out.print(terminal_table(result.metrics))
    for wrong in result.failures:
        out.print(_line(wrong), markup=False)


def _line(wrong: Failure) -> str:
    question = wrong.question if len(wrong.question) <= SHOWN else f"… {wrong.question[-SHOWN:]}"
    return f"{wrong.type}: {question!r} -> {wrong.got!r}, expected {wrong.expected!r}, from {wrong.attributed!r}"
