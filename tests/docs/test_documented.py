"""Names that users meet in both packages (errors, metrics, paths, environment variables) appear in the documents.

Routes and fields of the admin API, commands, flags and settings have stricter tests of their own under tests/server.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from incomes_plugin import errors

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "incomes_plugin").rglob("*.py"), *(ROOT / "server").rglob("*.py")])
DOCUMENTS = "\n".join(p.read_text() for p in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])
NAMES = {
    "metrics": re.compile(r"incomes:[a-z][a-z0-9_]*[a-z0-9]"),
    "paths": re.compile(r"/plugins/[a-z_/]+|/livez|/readyz|/health"),
    "environment": re.compile(r"INCOMES_[A-Z][A-Z_]*[A-Z]"),
}


def literals(pattern: re.Pattern[str]) -> set[str]:
    """String constants of the source tree that match `pattern` entirely (a docstring never does)."""
    nodes = (node for path in SOURCES for node in ast.walk(ast.parse(path.read_text())))
    constants = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {value for value in constants if pattern.fullmatch(value)}


def error_codes(cls: type[errors.IncomesError] = errors.IncomesError) -> set[str]:
    """Codes of the whole exception tree."""
    return {cls.code}.union(*(error_codes(child) for child in cls.__subclasses__()))


def missing(names: set[str]) -> list[str]:
    """Names that no document holds as a word of their own."""
    return sorted(name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", DOCUMENTS))


def test_error_codes() -> None:
    assert len(error_codes()) > 20
    assert missing(error_codes()) == []


@pytest.mark.parametrize("kind", ["metrics", "paths"])
def test_names(kind: str) -> None:
    assert missing(literals(NAMES[kind])) == []


def test_environment_variables() -> None:
    """A setting is documented by its field name, `INCOMES_` and the name being its variable."""
    undocumented = missing(literals(NAMES["environment"]))
    assert [name for name in undocumented if f"`{name.removeprefix('INCOMES_').lower()}`" not in DOCUMENTS] == []


def test_the_check_finds_what_is_there() -> None:
    assert "/plugins/incomes/status" in literals(NAMES["paths"])
    assert "INCOMES_BASE_CACHE" in literals(NAMES["environment"])
    assert missing({"no_such_error_code"}) == ["no_such_error_code"]
