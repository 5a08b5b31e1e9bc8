"""`incomes transplant`: a base and a donor in, a checkpoint with the donor's tokenizer out; or the way back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from incomes_plugin.errors import InvalidValue
from incomes_plugin.transplant.checkpoint import Recipe, Report, Written, write_checkpoint
from incomes_plugin.transplant.manifest import restore as restore_base
from incomes_plugin.transplant.methods import METHODS
from incomes_plugin.transplant.prepare import Prepared, prepare

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
        int | None, typer.Option(help="Anchors of a new row (omp); default: a sixth of the donor's width.", min=1)
    ] = None,
    special: Annotated[
        list[str] | None, typer.Option("--map", help='Special tokens that play the same part: "<donor>=<base>".')
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws rows (random).")] = 0,
    restore: Annotated[
        Path | None, typer.Option(help="A transplanted checkpoint: write its base, byte by byte, to --out.")
    ] = None,
) -> None:
    """Write OUT: the base's body behind the donor's tokenizer."""
    if restore:
        restore_base(restore, _given(out, "out"))
        out_console.print(f"wrote {out}: every byte as it was", markup=False)
        return
    if method not in METHODS:
        raise InvalidValue(f"no method {method!r}; there are {', '.join(METHODS)}", param="method")
    target = _given(out, "out")
    prepared = prepare(_given(base, "base"), _given(donor, "donor"), parse_map(special or ()))
    with _progress() as progress:
        written = write_checkpoint(prepared, Recipe(method, k, seed), target, progress)
    for line in summary(prepared, method, written):
        out_console.print(line, markup=False)
    out_console.print(f"wrote {target}", markup=False)


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


def summary(prepared: Prepared, method: str, written: Written) -> Iterator[str]:
    """What was done, for people."""
    rows, specials = prepared.rows, prepared.specials
    by_id = prepared.donor.vocabulary.by_id
    yield f"{len(prepared.alignment.copied):,} tokens in both vocabularies: rows copied bit by bit"
    yield f"{len(rows.estimated):,} tokens the base lacks: rows by {method}" + (
        f", k = {written.k}" if method == "omp" else ""
    )
    for part, ids in written.spelled.items():
        if ids:
            yield f"  {part}: {len(ids):,} of them without a usable row in the donor, made of the base's pieces"
    pairs = ", ".join(f"{by_id[d].name} = {prepared.base.vocabulary.by_id[b].name}" for d, b in specials.copied.items())
    yield f"special tokens in the same part: {pairs or 'none'}"
    yield f"special tokens brought along: {', '.join(token.name for token in specials.carried) or 'none'}"
    if specials.unmatched:
        yield f"special tokens the base knows nothing of: {', '.join(by_id[i].name for i in specials.unmatched[:8])}"
    if not prepared.fitted.word_start_kept:
        yield "warning: the base's space before text cannot be kept with this tokenizer; short answers will suffer"
    yield f"{len(rows.gist_ids)} gist tokens at new ids; {rows.num_rows:,} rows, {len(rows.idle):,} of them idle"


def _given(path: Path | None, name: str) -> Path:
    if path is None:
        raise InvalidValue(f"--{name} is missing", param=name)
    return path


@contextmanager
def _progress() -> Iterator[Report]:
    """A bar for every matrix, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err_console, disable=not err_console.is_terminal, transient=True) as bars:
        tasks = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done)

        yield report
