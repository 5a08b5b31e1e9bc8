"""How commands speak: rich on a terminal, plain text in a pipe, JSON with --json; errors say what to do next."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated, Any, NoReturn

import typer
from incomes_server.api.admin.schemas import Deleted, EditObject, WaitFor
from rich.console import Console
from rich.table import Table

from incomes_plugin.errors import IncomesError, InvalidRequest, Unavailable

JsonFlag = Annotated[bool, typer.Option("--json", help="print JSON instead of text")]

out = Console(soft_wrap=True, highlight=False)
err = Console(soft_wrap=True, highlight=False, stderr=True)


class ExitCode(IntEnum):
    """What the shell sees."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_READY = 3


def print_json(value: Any) -> None:
    """One JSON document on stdout, without colour; models of answers as the API sends them."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=lambda model: model.model_dump(mode="json"))
    sys.stdout.write(text + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on a terminal; tab-separated lines without a header in a pipe."""
    if not out.is_terminal:
        for row in rows:
            sys.stdout.write("\t".join("" if cell is None else str(cell) for cell in row) + "\n")
        return
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    out.print(table)


def print_record(record: Mapping[str, object]) -> None:
    """`name  value` lines."""
    print_table(("field", "value"), record.items())


def fail(message: str, code: ExitCode = ExitCode.FAILED) -> NoReturn:
    """Print the error to stderr and leave."""
    err.print(f"error: {message}", markup=False)
    raise typer.Exit(int(code))


def show_removal(item: EditObject | Deleted, done: str, as_json: bool, took: str = "") -> None:
    """Say that an edit or an edit set is gone, and whether any replica may still use it; leave with an error if so.

    Args:
        item: what the admin API answered; `reached` is `active` when every live replica has the change.
        done: what was done to it, as in "retired".
        took: how long, behind it.
    """
    unused = item.reached is WaitFor.ACTIVE
    state = "no replica uses it any more" if unused else "a replica may still use it"
    if as_json:
        print_json(item)
    else:
        out.print(f"{item.id}  {done}, {state}{took}")
    if not unused:
        fail(f"{item.id}: {state}; not every replica has followed within the time, and it will")


def end_now(error: IncomesError | None) -> NoReturn:
    """Print the error, if there is one, and end the process without any cleaning up."""
    if error is not None:
        err.print(f"error: {error.message}", markup=False)
    end_quietly(error)


def end_quietly(error: IncomesError | None) -> NoReturn:
    """End the process with the error's status, without any cleaning up."""
    os._exit(ExitCode.FAILED if error is None else exit_code_of(error))


@contextmanager
def errors_as_exit() -> Iterator[None]:
    """Turn our errors into a message and an exit code."""
    try:
        yield
    except IncomesError as error:
        fail(error.message, exit_code_of(error))


def exit_code_of(error: IncomesError) -> ExitCode:
    """2 for a request that must be changed, 3 for a server that is not ready, else 1."""
    if isinstance(error, Unavailable):
        return ExitCode.NOT_READY
    return ExitCode.USAGE if isinstance(error, InvalidRequest) else ExitCode.FAILED
