"""`incomes transplant`: a base and a donor in, the base with the donor's tokenizer out; its edit adapter follows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from incomes_plugin.errors import AdapterMissing, InvalidValue
from incomes_plugin.lab.data.examples import own
from incomes_plugin.lab.progress import stages
from incomes_plugin.lab.transplant.assess import Assessment, Verdict, assess
from incomes_plugin.lab.transplant.cutting import Cut
from incomes_plugin.lab.transplant.methods import METHODS, Recipe
from incomes_plugin.lab.transplant.prepare import prepare
from incomes_plugin.lab.transplant.report import assessment_lines, document, result_lines
from incomes_plugin.lab.transplant.run import TransplantOptions, carry_out
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.base import resolve_model
from incomes_plugin.model.resolve import resolve

app = typer.Typer(help="Give a checkpoint another model's tokenizer, without training.", add_completion=False)
out_console = Console(highlight=False, soft_wrap=True)
err_console = Console(highlight=False, stderr=True)


@app.command()
def transplant(
    model: Annotated[str, typer.Argument(help="Base: default, a folder, a hub id; or a folder of `incomes adapt`.")],
    donor: Annotated[str, typer.Argument(help="Model whose tokenizer is wanted; without weights for some methods.")],
    out: Annotated[Path | None, typer.Option(help="New folder; the adapter lies in its folder adapter/.")] = None,
    adapter: Annotated[str | None, typer.Option(help="The base's edit adapter; default: as for serve.")] = None,
    method: Annotated[str, typer.Option(help=f"How new rows are made: {', '.join(METHODS)}.")] = "omp",
    k: Annotated[
        str | None,
        typer.Option(
            help="Anchors of a new row (omp): a number, or auto = what --text likes best; default: width / 6."
        ),
    ] = None,
    special: Annotated[
        list[str] | None, typer.Option("--map", help='Special tokens that play the same part: "<donor>=<base>".')
    ] = None,
    assess_only: Annotated[bool, typer.Option("--assess", help="Say whether it will work; write nothing.")] = False,
    text: Annotated[
        Path | None, typer.Option(help="A file with text of yours, for the assessment and bits per byte.")
    ] = None,
    edits: Annotated[
        Path | None, typer.Option(help="JSONL of edits and questions, to be asked before and after.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Bits per byte of every method, in the report.")] = False,
    allow_number_mismatch: Annotated[
        bool, typer.Option("--allow-number-mismatch", help="Go on although numbers will be cut otherwise.")
    ] = False,
    cut: Annotated[
        Cut, typer.Option(help="Who cuts text: the donor; the donor, but numbers as the base; words as the base.")
    ] = Cut.DONOR,
    json_out: Annotated[Path | None, typer.Option("--json", help="With --assess: write all measurements here.")] = None,
) -> None:
    """Write OUT: the base's body behind the donor's tokenizer."""
    if method not in METHODS:
        raise InvalidValue(f"no method {method!r}; there are {', '.join(METHODS)}", param="method")
    base, its_adapter = _resolved(model, adapter, needed=edits is not None)
    prepared = prepare(base, resolve_model(donor), parse_map(special or ()), cut, its_adapter)
    words = None if text is None else text.read_text()
    found = assess(prepared, words)
    if assess_only:
        _show_assessment(found, json_out)
        return
    if found.base_digits != found.donor_digits and not allow_number_mismatch:
        raise InvalidValue(
            f"the base cuts numbers as {found.base_digits}, the donor as {found.donor_digits}: arithmetic would break; "
            "--cut numbers or --cut words cuts them as the base does, --allow-number-mismatch goes on", param="donor",
        )  # fmt: skip
    if out is None:
        raise InvalidValue("--out is missing", param="out")
    number, every_k = parse_k(k)
    options = TransplantOptions(Recipe(method, number), words, every_k, compare, own(edits) if edits else ())
    with stages(err_console) as progress:
        result = carry_out(prepared, found, options, out, progress)
    _say([*assessment_lines(found), *result_lines(result), f"wrote {out}"])


def _resolved(model: str, adapter: str | None, *, needed: bool) -> tuple[Path, EditAdapter | None]:
    """The base's folder and its adapter; a base without one is transplanted alone unless an adapter is `needed`."""
    try:
        served = resolve(model, adapter)
    except AdapterMissing:
        if adapter or needed:
            raise
        return resolve_model(model), None
    return served.base_dir, EditAdapter.load(served.adapter_dir)


def _show_assessment(found: Assessment, json_out: Path | None) -> None:
    """Print it; exit status 1 if the verdict is no."""
    _say(assessment_lines(found))
    if json_out:
        json_out.write_text(json.dumps(document(found), indent=1) + "\n")
    if found.verdict is Verdict.NO:
        raise typer.Exit(1)


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        out_console.print(line, markup=False)


def parse_map(pairs: Sequence[str]) -> dict[str, str]:
    """Base names by donor names; a name may hold `=` if the other does not.

    Raises:
        InvalidValue: no `=`, or more than one.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        donor, equals, base = pair.partition("=")
        if not (donor and equals and base) or "=" in base:
            raise InvalidValue(f'{pair!r} is no pair "<donor>=<base>"', param="map")
        found[donor] = base
    return found


def parse_k(k: str | None) -> tuple[int | None, bool]:
    """A number or None for the default, and whether it is to be chosen.

    Raises:
        InvalidValue: neither a positive number nor `auto`.
    """
    if k is None or k == "auto":
        return None, k == "auto"
    if not k.isdecimal() or int(k) < 1:
        raise InvalidValue(f"--k {k}: a number from 1, or auto", param="k")
    return int(k), False
