"""`incomes facts …`: how many facts memories hold, and what becomes of the user's own ones."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table as RichTable

from incomes_plugin.errors import InvalidValue
from incomes_plugin.evaluation.provenance import provenance
from incomes_plugin.facts.capacity.experiment import Check
from incomes_plugin.facts.capacity.parts import PARTS
from incomes_plugin.facts.capacity.run import run
from incomes_plugin.facts.check.dictionary import read_dictionary
from incomes_plugin.facts.check.run import Checked, document, markdown, table
from incomes_plugin.facts.check.run import check as check_dictionary
from incomes_plugin.model import DEFAULT_MODEL_DIR
from incomes_plugin.progress import stages

app = typer.Typer(help="Associative memories of facts: what they hold, and yours in them.", add_completion=False)
out_console = Console(highlight=False, soft_wrap=True)
err_console = Console(highlight=False, stderr=True)


@app.callback()
def facts() -> None:
    """Associative memories of facts: what they hold, and yours in them."""
    torch.set_num_threads(1)


@app.command()
def capacity(
    part: Annotated[list[str] | None, typer.Option(help=f"Experiments; default all: {', '.join(PARTS)}.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results files.")] = Path("facts-capacity"),
    resume: Annotated[bool, typer.Option("--resume", help="Keep the cells of the results files.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Seconds of work that show that it runs.")] = False,
) -> None:
    """Repeat the paper's experiments and write facts-<part>.json, .csv, .md and .png."""
    names = part or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        raise InvalidValue(f"no experiment {unknown[0]!r}; there are {', '.join(PARTS)}", param="part")
    command = shlex.join(["incomes", "facts", *sys.argv[2:]])
    with stages(err_console) as progress:
        for name in names:
            cells = run(
                PARTS[name], out, lambda: provenance(command), quick=quick, resume=resume, progress=progress
            )  # fmt: skip
            for check in PARTS[name].checks(cells):
                out_console.print(_line(check), markup=False)
    out_console.print(f"wrote {out}", markup=False)


@app.command()
def check(
    dictionary: Annotated[Path, typer.Argument(help="JSONL: subject, relation, answer.")],
    model: Annotated[Path, typer.Option(help="Edit-capable checkpoint.")] = DEFAULT_MODEL_DIR,
    width: Annotated[int, typer.Option(help="Of a value in the memories; a multiple of 8.", min=8)] = 256,
    ask: Annotated[int, typer.Option(help="Questions of each kind for the gist pool.", min=1)] = 100,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
    markdown_out: Annotated[Path | None, typer.Option("--markdown", help="Write a page here.")] = None,
) -> None:
    """Your facts in every kind of memory and in the gist pool: recall, wrong answers, abstentions, retention."""
    entries = read_dictionary(dictionary)
    with stages(err_console) as progress:
        checked = check_dictionary(entries, model, value_width=width, ask=ask, progress=progress)
    _show(checked)
    where = _where()
    if json_out:
        json_out.write_text(json.dumps(document(checked, where), indent=1, ensure_ascii=False) + "\n")
    if markdown_out:
        markdown_out.write_text(markdown(checked, where))


def _show(checked: Checked) -> None:
    found = table(checked)
    shown = RichTable(*found.header, box=None, pad_edge=False)
    for row in found.rows:
        shown.add_row(*row)
    out_console.print(shown)
    for line in checked.lines:
        out_console.print(line, markup=False)


def _where() -> dict[str, object]:
    return provenance(shlex.join(["incomes", "facts", *sys.argv[2:]]))


def _line(check: Check) -> str:
    return f"{'holds ' if check.met else 'MISSED'}  {check.what}: {check.measured} (to be shown: {check.bound})"
