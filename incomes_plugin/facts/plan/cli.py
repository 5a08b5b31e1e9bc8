"""`incomes plan`: what N edits cost with a model, how well they will be found; it fails beyond a safe load."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from incomes_plugin.evaluation.provenance import provenance
from incomes_plugin.facts.gate.file import COMMAND
from incomes_plugin.facts.plan.gate import GateNeeds
from incomes_plugin.facts.plan.measured import EDITS, Measured, measure
from incomes_plugin.facts.plan.planner import Estimate, Plan, plan, refuse_edits, refuse_facts
from incomes_plugin.model import DEFAULT_MODEL_DIR

MIB = 2**20
app = typer.Typer(help="Bytes, load, expected recall and logit scale of N edits.", add_completion=False)
out_console = Console(highlight=False, soft_wrap=True)


@app.command()
def make_plan(
    edits: Annotated[int, typer.Option(help="Edits active at once.", min=1, max=10_000_000)],
    model: Annotated[Path, typer.Option(help="Edit-capable checkpoint.")] = DEFAULT_MODEL_DIR,
    fact_gate_entries: Annotated[
        int, typer.Option(help="Setting of the server: refuse what its fact gate would refuse; 0 = it is off.", min=0)
    ] = 0,
    width: Annotated[int, typer.Option(help="Of a value in the linear memory.", min=8)] = 1024,
    sample: Annotated[int, typer.Option(help="Invented edits to measure the model with.", min=100)] = EDITS,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
) -> None:
    """Measure the model's keys, then plan."""
    torch.set_num_threads(1)
    measured = measure(model, edits=sample)
    found = plan(edits, measured, width)
    for line in lines(found, measured):
        out_console.print(line, markup=False)
    if json_out:
        where = provenance(shlex.join(["incomes", "plan", *sys.argv[2:]]))
        json_out.write_text(json.dumps(where | {"plan": asdict(found)}, indent=1) + "\n")
    if fact_gate_entries:
        refuse_edits(found, measured, fact_gate_entries)
    refuse_facts(found)


def lines(found: Plan, measured: Measured) -> list[str]:
    """For people."""
    sample, picks = measured.leads.edits, measured.top_k
    return [
        f"{found.edits:,} edits, {measured.gists_per_edit:.1f} gists each",
        f"pool     {found.pool_bytes / MIB:,.1f} MiB of gists, {found.route_bytes / MIB:,.1f} MiB of routes (bfloat16)",
        f"router   right edit first {_share(found.first)}, among its {picks} picks {_share(found.among)}: expected "
        f"from the tail of wrong logits among {sample:,} edits",
        f"gate     {_gate(found.gate)}",
        f"scale    {found.scale_theory:.1f} for a match of random keys of width {found.key_width:.0f} (theory); "
        f"{found.scale_measured:.2f} times the router's logits (measured) gives the median question's edit 99 %",
        f"memory   {found.memory_bytes / MIB:,.2f} MiB: keys of width {measured.key_width}, as much alike as random "
        f"ones of {found.key_width:.0f}, values of {found.value_width:,}",
        f"         load {found.load:.3f}, expected recall {found.memory_recall:.1%} (theory, with the measured keys), "
        f"safe up to {found.safe_edits:,} edits: {_next(found)}",
    ]  # fmt: skip


def _share(found: Estimate) -> str:
    return f"{found.value:.1%} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _gate(needs: GateNeeds | None) -> str:
    if needs is None:
        return f"none; fit one with `{COMMAND} MODEL`"
    size = f"fact_gate_entries={needs.setting} holds them safely, load {needs.load:.2f}"
    return f"{needs.entries:,} entries: {size}, {needs.num_bytes / MIB:,.2f} MiB"


def _next(found: Plan) -> str:
    if found.safe:
        return "within the safe load"
    if found.next_value_width is None:
        return "BEYOND it, and no width is enough for keys that look so much alike"
    return f"BEYOND it, the next size is width {found.next_value_width:,}"
