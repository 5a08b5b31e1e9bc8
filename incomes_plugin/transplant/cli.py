"""`incomes transplant`: a base and a donor in, a checkpoint with the donor's tokenizer out; or the way back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from incomes_plugin.errors import InvalidValue
from incomes_plugin.progress import stages
from incomes_plugin.transplant.assess import Assessment, Verdict, assess
from incomes_plugin.transplant.cutting import Cut
from incomes_plugin.transplant.manifest import restore as restore_base
from incomes_plugin.transplant.methods import METHODS
from incomes_plugin.transplant.prepare import prepare
from incomes_plugin.transplant.recipe import Recipe
from incomes_plugin.transplant.report import assessment_lines, document, result_lines
from incomes_plugin.transplant.run import Wishes, carry_out

app = typer.Typer(help="Give a checkpoint another model's tokenizer, without training.", add_completion=False)
out_console = Console(highlight=False, soft_wrap=True)
err_console = Console(highlight=False, stderr=True)


@app.command()
def transplant(
    base: Annotated[Path | None, typer.Option(help="Checkpoint folder; edit-capable or not.")] = None,
    donor: Annotated[
        Path | None, typer.Option(help="Model folder whose tokenizer is wanted; without weights for some methods.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder.")] = None,
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
    seed: Annotated[int, typer.Option(help="Draws rows (random).")] = 0,
    assess_only: Annotated[bool, typer.Option("--assess", help="Say whether it will work; write nothing.")] = False,
    text: Annotated[
        Path | None, typer.Option(help="A file with text of yours, for the assessment and bits per byte.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Bits per byte of every method, in the report.")] = False,
    allow_number_mismatch: Annotated[
        bool, typer.Option("--allow-number-mismatch", help="Go on although numbers will be cut otherwise.")
    ] = False,
    cut: Annotated[
        Cut, typer.Option(help="Who cuts text: the donor; the donor, but numbers as the base; words as the base.")
    ] = Cut.DONOR,
    json_out: Annotated[Path | None, typer.Option("--json", help="With --assess: write all measurements here.")] = None,
    restore: Annotated[
        Path | None, typer.Option(help="A transplanted checkpoint: write its base, byte by byte, to --out.")
    ] = None,
) -> None:
    """Write OUT: the base's body behind the donor's tokenizer."""
    if restore:
        restore_base(restore, _given(out, "out"))
        _say([f"wrote {out}: every byte as it was"])
        return
    if method not in METHODS:
        raise InvalidValue(f"no method {method!r}; there are {', '.join(METHODS)}", param="method")
    prepared = prepare(_given(base, "base"), _given(donor, "donor"), parse_map(special or ()), cut)
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
    target = _given(out, "out")
    number, every_k = parse_k(k)
    wishes = Wishes(Recipe(method, number, seed), words, every_k, compare)
    with stages(err_console) as progress:
        result = carry_out(prepared, found, wishes, target, progress)
    _say([*assessment_lines(found), *result_lines(result), f"wrote {target}"])


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


def _given(path: Path | None, name: str) -> Path:
    if path is None:
        raise InvalidValue(f"--{name} is missing", param=name)
    return path
