"""What users meet by name (errors, metrics, commands, flags, settings, routes) appears in the documents."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import typer
from incomes_server.cli.main import app
from incomes_server.settings import Settings

from incomes_plugin import errors

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "incomes_plugin").rglob("*.py"), *(ROOT / "server").rglob("*.py")])
METRIC = re.compile(r"incomes:[a-z][a-z0-9_]*[a-z0-9]")
ROUTE = re.compile(r"/(v1|healthz|readyz|livez|metrics)[\w/{}\-.:]*")
VERBS = {"get", "post", "put", "patch", "delete", "api_route"}


def documents() -> str:
    """All prose: README and docs/, in one string."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return "\n".join(path.read_text() for path in paths)


DOCUMENTS = documents()


def literals(pattern: re.Pattern[str]) -> Iterator[str]:
    """String constants of the source tree that match `pattern` entirely (docstrings never do)."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and pattern.fullmatch(node.value):
                yield node.value


def routes() -> Iterator[str]:
    """Paths in route decorators (`@router.get("/v1/edits")`), with the prefix of their router."""
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        prefix = router_prefix(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in VERBS:
                    yield prefix + str(ast.literal_eval(call.args[0]))


def router_prefix(tree: ast.Module) -> str:
    """`prefix=` of the module's APIRouter, or nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "APIRouter":
            for keyword in node.keywords:
                if keyword.arg == "prefix":
                    return str(ast.literal_eval(keyword.value))
    return ""


def error_codes(cls: type[errors.IncomesError] = errors.IncomesError) -> set[str]:
    """Codes of the whole exception tree."""
    return {cls.code}.union(*(error_codes(child) for child in cls.__subclasses__()))


def missing(names: set[str]) -> list[str]:
    """Names that no document holds as a word of their own."""
    return sorted(name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", DOCUMENTS))


def test_every_error_code() -> None:
    assert missing(error_codes()) == []


def test_every_metric() -> None:
    assert missing(set(literals(METRIC))) == []


def test_every_route() -> None:
    assert missing({re.sub(r":path}", "}", route) for route in routes()}) == []


def test_every_command_and_flag() -> None:
    names: set[str] = set()

    def walk(command: click.Command, path: str) -> None:
        names.add(path)
        names.update(flag for param in command.params for flag in param.opts if flag.startswith("--"))
        for name, child in getattr(command, "commands", {}).items():
            walk(child, f"{path} {name}")

    walk(typer.main.get_command(app), "incomes")
    assert missing(names - {"--help", "--install-completion", "--show-completion"}) == []


def test_every_setting() -> None:
    undocumented = set(missing({f"INCOMES_{name.upper()}" for name in Settings.model_fields}))
    assert {name for name in undocumented if f"`{name.removeprefix('INCOMES_').lower()}`" not in DOCUMENTS} == set()
