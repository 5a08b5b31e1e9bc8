"""`incomes facts …` and `incomes plan`: what memories hold, what becomes of your facts in them, what N edits take."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from pydantic import ByteSize, TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table as RichTable
from transformers import AutoTokenizer

from incomes_plugin.errors import EditTooLong, InvalidValue
from incomes_plugin.lab.data.examples import invented, own, statements
from incomes_plugin.lab.facts import plan as planning
from incomes_plugin.lab.facts.capacity.experiment import Claim
from incomes_plugin.lab.facts.capacity.parts import PARTS
from incomes_plugin.lab.facts.capacity.run import run
from incomes_plugin.lab.facts.check import Asker, table
from incomes_plugin.lab.facts.check import check as check_facts
from incomes_plugin.lab.progress import stages
from incomes_plugin.lab.provenance import provenance
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.edit_encoder import EditEncoder
from incomes_plugin.model.resolve import resolve

app = typer.Typer(help="Associative memories of facts: what they hold, and yours in them.", add_completion=False)
plan_app = typer.Typer(help="Bytes, milliseconds and room for N edits on this machine.", add_completion=False)
out_console = Console(highlight=False, soft_wrap=True)
err_console = Console(highlight=False, stderr=True)
SAMPLE = 500
"""Number of invented facts whose mean length is assumed when no file of edits is given."""

_ModelOption = Annotated[str, typer.Option(help="As for serve.")]
_AdapterOption = Annotated[str | None, typer.Option(help="As for serve.")]
_JsonOption = Annotated[Path | None, typer.Option("--json", help="Write all figures here.")]


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
    with stages(err_console) as progress:
        for name in names:
            cells = run(PARTS[name], out, lambda: _where("facts"), quick=quick, resume=resume, progress=progress)
            for found in PARTS[name].checks(cells):
                out_console.print(_line(found), markup=False)
    out_console.print(f"wrote {out}", markup=False)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="JSONL: text of an edit, and the questions that it answers.")],
    model: _ModelOption = "default",
    adapter: _AdapterOption = None,
    width: Annotated[int, typer.Option(help="Of a value in the memories; a multiple of 8.", min=8)] = 256,
    json_out: _JsonOption = None,
) -> None:
    """Your facts in every kind of memory and as edits: recall, wordings, unrelated prompts, retention, bytes."""
    examples, served = own(file), resolve(model, adapter)
    asker = Asker(served.base_dir, EditAdapter.load(served.adapter_dir))
    with stages(err_console) as progress:
        outcomes = check_facts(asker, examples, width, progress)
    found = table(outcomes)
    shown = RichTable(*found.header, box=None, pad_edge=False)
    for row in found.rows:
        shown.add_row(*row)
    out_console.print(shown)
    if json_out:
        json_out.write_text(json.dumps(_where("facts") | {"outcomes": list(map(asdict, outcomes))}, indent=1) + "\n")


@plan_app.command()
def plan(
    file: Annotated[Path | None, typer.Argument(help="JSONL of edits: objects with text, as for edit import.")] = None,
    edits: Annotated[int | None, typer.Option(help="N; default: as many as the file has.", min=1)] = None,
    model: _ModelOption = "default",
    adapter: _AdapterOption = None,
    memory: Annotated[str | None, typer.Option(help="For gists, e.g. 16GiB; default: what is free here.")] = None,
    device_memory: Annotated[str | None, typer.Option(help="For route keys on a GPU; default: as memory says.")] = None,
    json_out: _JsonOption = None,
) -> None:
    """What N edits take, how many fit, and how long routing takes; fails where they do not fit."""
    if file is None and edits is None:
        raise InvalidValue("give --edits N, a file of edits, or both", param="edits")
    served = resolve(model, adapter)
    its_adapter = EditAdapter.load(served.adapter_dir)
    lengths = _lengths(file, served.base_dir, its_adapter)
    cost = planning.EditCost.of(its_adapter, lengths)
    needs = planning.Needs.of(edits or len(lengths), cost)
    here = planning.FreeMemory.of_machine()
    room = planning.FreeMemory(
        here.host_bytes if memory is None else _bytes(memory, "memory"),
        _bytes(device_memory, "device-memory") if device_memory else None if memory else here.device_bytes,
    )
    _say(lines(needs, cost, room))
    planning.refuse_what_does_not_fit(needs, room, cost)
    routing = planning.measure_routing(needs, cost, (here.device_bytes or here.host_bytes) // 2)
    _say([routing_line(routing)])
    if json_out:
        figures = {name: asdict(part) for name, part in (("needs", needs), ("cost", cost), ("routing", routing))}
        json_out.write_text(json.dumps(_where("plan") | figures, indent=1) + "\n")


def lines(needs: planning.Needs, cost: planning.EditCost, room: planning.FreeMemory) -> Iterator[str]:
    """Bytes, and what fits, for people."""
    readable = planning.readable
    yield f"{needs.edits:,} edits of {cost.tokens:.1f} tokens"
    yield f"an edit  {readable(cost.gist_bytes)} of gist, {readable(cost.rows * cost.row_bytes)} of route keys"
    yield f"host     {readable(needs.gist_bytes)} of gists, {readable(needs.object_bytes)} of objects that hold them"
    index = f"; {readable(needs.index_bytes)} of their index" if needs.index_bytes and room.device_bytes is None else ""
    yield f"device   {readable(needs.route_bytes)} of route keys, in an arena of {readable(needs.device_bytes)}{index}"
    yield f"setting  pool_bytes {readable(needs.pool_bytes)} at least"
    shared = " for both" if room.device_bytes is None else f" and {readable(room.device_bytes)}"
    yield f"room     {readable(room.host_bytes)}{shared}: {room.most_edits(cost):,} edits fit"


def routing_line(routing: planning.Routing) -> str:
    """What routing takes, for people."""
    scaled = "" if routing.rows == routing.measured_rows else f", scaled from {routing.measured_rows:,} rows"
    return (
        f"routing  {routing.ms:,.1f} ms a request ({routing.cpu_ms:,.1f} ms of processor time), for a question of "
        f"{planning.QUESTION_TOKENS} tokens and {routing.rows:,} rows of route keys ({routing.threads} threads{scaled})"
    )


def _say(found: Iterable[str]) -> None:
    for line in found:
        out_console.print(line, markup=False)


def _lengths(file: Path | None, base: Path, adapter: EditAdapter) -> list[int]:
    """Tokens of each edit of the file, or of invented ones."""
    texts = statements(invented(SAMPLE, seed=0, held_out=True)) if file is None else _texts(file)
    tokenizer = AutoTokenizer.from_pretrained(base)
    edit_encoder = EditEncoder(lambda text: tokenizer(text, add_special_tokens=False)["input_ids"])
    found = [len(edit_encoder(text)) for text in texts]
    if max(found) > adapter.max_edit_tokens:
        number = found.index(max(found)) + 1
        raise EditTooLong(
            f"edit {number} has {max(found)} tokens, the limit is {adapter.max_edit_tokens}: shorten or split it"
        )
    return found


def _texts(file: Path) -> list[str]:
    found = []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        try:
            found.append(str(json.loads(line)["text"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidValue(f'{file}, line {number}: {error!r}; expected {{"text": "…"}}', param="file") from error
    if not found:
        raise InvalidValue(f"{file} holds no edits", param="file")
    return found


def _bytes(text: str, param: str) -> int:
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as error:
        raise InvalidValue(f"{text!r} is no size; write 16GiB", param=param) from error


def _where(verb: str) -> dict[str, object]:
    return provenance(shlex.join(["incomes", verb, *sys.argv[2:]]))


def _line(claim: Claim) -> str:
    return f"{'holds ' if claim.met else 'MISSED'}  {claim.what}: {claim.measured} (to be shown: {claim.bound})"
