"""Rules for files: docstrings, sizes, results with their origin, decision records, links that lead somewhere."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    path for top in ("incomes_plugin", "server", "benchmarks", "deploy") for path in (ROOT / top).rglob("*.py")
)
ROOT_DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS = [*ROOT_DOCUMENTS, *sorted((ROOT / "docs").rglob("*.md"))]
RECORDS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
MAX_FILE_BYTES = 20_000_000
PATH = re.compile(r"`((?:incomes_plugin|server|tests|docs|deploy|benchmarks)/[\w./-]*\w)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
PLACE = re.compile(r"\]\(([^)#:]+)#([^)]*)\)")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{relative(path)} has no module docstring"


def public_nouns(path: Path) -> list[str]:
    """Classes and type aliases that a module makes, those beginning with `_` left out."""
    names = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [t.id for t in targets if isinstance(t, ast.Name) and re.match("[A-Z].*[a-z]", t.id)]
    return [name for name in names if not name.startswith("_")]


def test_no_public_noun_stands_for_two_things() -> None:
    homes: dict[str, list[str]] = {}
    for top in ("incomes_plugin", "server"):
        for path in sorted((ROOT / top).rglob("*.py")):
            for name in public_nouns(path):
                homes.setdefault(name, []).append(relative(path))
    assert len(homes) > 300
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_no_file_is_too_big() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    sizes = {name: (ROOT / name).stat().st_size for name in listed.split("\0") if name and (ROOT / name).is_file()}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_BYTES} == {}


@pytest.mark.parametrize("path", RESULTS, ids=relative)
def test_result_says_where_it_comes_from(path: Path) -> None:
    result = json.loads(path.read_text())
    result = result.get("_run", result)  # `incomes eval` keeps its metrics at the top
    for field in ("machine", "commit", "command", "date"):
        assert result.get(field), f"{relative(path)} lacks {field!r}"
    assert re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", result["commit"])


@pytest.mark.parametrize("path", RECORDS, ids=relative)
def test_decision_record_is_complete_and_listed(path: Path) -> None:
    text = path.read_text()
    assert re.match(rf"# {path.name[:4]} \S", text)
    assert re.search(r"^Status: (proposed|accepted|rejected|superseded)", text, re.MULTILINE)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Evidence", "Consequences"]
    assert f"]({path.name})" in (path.parent / "README.md").read_text()


def tells_the_past(path: Path, text: str) -> bool:
    """Records of what was may name files that are gone; links must lead somewhere everywhere."""
    past = (ROOT / "CHANGELOG.md", ROOT / "docs" / "experiments.md")
    return path in past or re.search(r"^Status: superseded", text, re.MULTILINE) is not None


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_paths_and_links_lead_somewhere(path: Path) -> None:
    text = path.read_text()
    named = [] if tells_the_past(path, text) else PATH.findall(text)
    gone = [name for name in named if not (ROOT / name).exists()]
    gone += [link for link in LINK.findall(text) if not (path.parent / link).exists()]
    assert gone == []


def places(path: Path) -> set[str]:
    """Places of a page that links name, as the site makes them of its headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("path", ROOT_DOCUMENTS, ids=relative)
def test_links_into_pages_find_their_place(path: Path) -> None:
    """`make docs` checks the pages of docs/; these three are not part of the site."""
    links = PLACE.findall(path.read_text())
    assert [(page, place) for page, place in links if place not in places(path.parent / page)] == []


def test_every_package_draws_its_part_of_the_flow() -> None:
    """An `__init__` says in more than one line what comes in, what is done with it, and what comes out."""
    packages = [path for path in MODULES if path.name == "__init__.py"]
    drawn = {path: ast.get_docstring(ast.parse(path.read_text())) or "" for path in packages}
    assert [
        relative(path) for path, text in drawn.items() if len(text.splitlines()) < 3 or "To be described" in text
    ] == []
