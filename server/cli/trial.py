"""`incomes edit validate|preview`, `incomes test-suite get|set`, `incomes eval-run create|list|get`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from incomes_server.api.admin.eval_schemas import EvalRunObject
from incomes_server.cli.client import DEFAULT_URL, KeyOption, UrlOption, connect
from incomes_server.cli.edit import EditSetOption
from incomes_server.cli.output import JsonFlag, fail, out, print_json, print_record, print_table

from incomes_plugin.errors import InvalidValue

suite_app = typer.Typer(help="What an edit set is asked before its labels move.", no_args_is_help=True)
run_app = typer.Typer(help="Ask a state of an edit set its test suite.", no_args_is_help=True)

TextArgument = Annotated[str, typer.Argument(help="the fact; `-` reads it from stdin")]
NameArgument = Annotated[str, typer.Argument(help="name or id of the edit set")]


def validate(
    text: TextArgument,
    edit_set: EditSetOption = None,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say which rules an edit would break, and write nothing; status 1 when it breaks one."""
    found = connect(url, api_key).edits.validate(_text(text), edit_set=edit_set)
    if as_json:
        print_json(found)
    else:
        print_table(("code", "field", "problem"), ((each.code, each.param, each.message) for each in found.problems))
    if not found.valid:
        fail(f"the edit would be refused: {len(found.problems)} problems")


def preview(
    text: TextArgument,
    edit_set: EditSetOption = None,
    question: Annotated[list[str] | None, typer.Option(help="what to ask; repeat it")] = None,
    replaces: Annotated[str | None, typer.Option(help="edit whose next version this would be")] = None,
    neighbours: Annotated[int, typer.Option(min=0, max=32, help="edits nearby whose questions are asked too")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, max=256, help="longest answer")] = 32,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer questions without and with an edit, which is dropped afterwards."""
    found = connect(url, api_key).edits.preview(
        _text(text), edit_set=edit_set, questions=question or None, replaces=replaces, neighbours=neighbours,
        max_tokens=max_tokens,
    )  # fmt: skip
    if as_json:
        return print_json(found)
    own = (("own", q.question, q.before, q.after) for q in found.questions)
    near = ((n.edit, n.question, n.before, n.after) for n in found.neighbours if n.changed)
    print_table(("edit", "question", "before", "after"), [*own, *near])


@suite_app.command("get")
def get_suite(
    name: NameArgument, url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False
) -> None:
    """Show a test suite."""
    suite = connect(url, api_key).edit_sets.test_suite(name)
    print_json(suite) if as_json else print_record(suite.model_dump(mode="json"))


@suite_app.command("set")
def set_suite(
    name: NameArgument,
    file: Annotated[Path | None, typer.Argument(help='JSONL, `{"question": …, "expected": […]}` a line')] = None,
    generated: Annotated[bool, typer.Option(help="ask the newest edits by questions made from their words")] = True,
    required: Annotated[bool, typer.Option(help="labels move only to states whose last run passed")] = False,
    least_share: Annotated[float, typer.Option(min=0, max=1, help="share of right answers that passes")] = 1.0,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Replace a test suite, as a whole."""
    suite = connect(url, api_key).edit_sets.set_test_suite(
        name, _questions(file), generated=generated, required=required, least_share=least_share
    )
    print_json(suite) if as_json else out.print(f"{suite.id}  {len(suite.questions)} questions", markup=False)


@run_app.command("create")
def create_run(
    name: NameArgument,
    to: Annotated[str, typer.Argument(help="head, a version, a snapshot's id or a label")] = "head",
    max_tokens: Annotated[int, typer.Option(min=1, max=256, help="longest answer")] = 32,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask a state its questions; status 1 when it does not pass."""
    run = connect(url, api_key).eval_runs.create(name, to, max_tokens=max_tokens)
    _show(run, as_json)
    if run.status != "passed":
        fail(f"{run.id}: {run.passed} of {run.total} answers are right")


@run_app.command("list")
def list_runs(
    name: NameArgument,
    limit: Annotated[int, typer.Option(min=1, help="most runs to show")] = 20,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the runs of an edit set, newest first."""
    runs = list(connect(url, api_key).eval_runs.list(name, most=limit))
    if as_json:
        return print_json(runs)
    print_table(
        ("run", "snapshot", "status", "right", "asked"), ((r.id, r.snapshot, r.status, r.passed, r.total) for r in runs)
    )


@run_app.command("get")
def get_run(run_id: str, url: UrlOption = DEFAULT_URL, api_key: KeyOption = None, as_json: JsonFlag = False) -> None:
    """Show the answers of a run."""
    _show(connect(url, api_key).eval_runs.get(run_id), as_json)


def _show(run: EvalRunObject, as_json: bool) -> None:
    if as_json:
        return print_json(run)
    out.print(f"{run.id}  {run.snapshot}  {run.status}, {run.passed} of {run.total} right", markup=False)
    print_table(
        ("right", "question", "expected", "answer"),
        (("yes" if r.passed else "no", r.question, " | ".join(r.expected), r.answer) for r in run.results or ()),
    )


def _text(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def _questions(file: Path | None) -> list[dict[str, object]]:
    try:
        return [json.loads(line) for line in file.read_text().splitlines() if line.strip()] if file else []
    except (OSError, ValueError) as error:
        raise InvalidValue(f"{file} is not JSONL of questions: {error}", param="questions") from error
