"""pyproject.toml, Makefile and CI agree with the tree."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TARGETS = ("setup", "demo", "serve", "test", "quick", "coverage", "lint", "docs", "bench", "attack")


def test_every_package_folder_is_packaged() -> None:
    found = set()
    for top, name in (("incomes_plugin", "incomes_plugin"), ("server", "incomes_server")):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / top).parts
            found.add(".".join((name, *parts)))
    command = [sys.executable, "-c", "import setup; print(*setup.PACKAGES)"]
    packages = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert (set(packages), len(packages)) == (found, len(found))


def test_gpu_packages_stay_out_of_the_cpu_extra() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert any(line.startswith("xformers") for line in extras["cuda"])
    everywhere = [*PYPROJECT["project"]["dependencies"], *extras["cpu"], *extras["dev"]]
    assert not [line for line in everywhere if re.match(r"xformers|vllm\b(?!-cpu)", line)]


def test_every_import_is_a_dependency() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    lines = [*PYPROJECT["project"]["dependencies"], *extras["cpu"], *extras["cuda"], *extras["eval"]]
    declared = {requirement_name(line) for line in lines}
    owners = packages_distributions()
    undeclared = {
        name
        for name in imported_modules()
        if name not in sys.stdlib_module_names and not {canonical(d) for d in owners.get(name, [])} & declared
    }
    assert undeclared - {"incomes_plugin", "incomes_server"} == set()


def imported_modules() -> set[str]:
    """Top-level names that the two packages import, wherever in a file."""
    found = set()
    for path in [*(ROOT / "incomes_plugin").rglob("*.py"), *(ROOT / "server").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found


def requirement_name(line: str) -> str:
    return canonical(re.split(r"[\[<>=~! ;]", line)[0])


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("target", TARGETS)
def test_make_target_sets_up_first(target: str) -> None:
    plan = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "deploy/setup/environment.py" in plan
    assert target == "setup" or plan.index("environment.py") < plan.index(".venv/bin/")


def test_make_alone_has_a_line_for_each_target() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  (\w+) +\S", shown, re.MULTILINE)) == {"help", *TARGETS}


def test_ci_runs_lint_docs_and_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make lint docs test" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)


def test_pre_commit_runs_what_lint_runs_and_nothing_from_elsewhere() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    hooks = [hook["entry"] for hook in repos[0]["hooks"]]
    plan = subprocess.run(["make", "-n", "lint"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert hooks == [line for line in plan.splitlines() if line.startswith(".venv/bin/")]
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in repos[0]["hooks"])
