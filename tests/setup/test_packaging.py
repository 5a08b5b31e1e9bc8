"""pyproject.toml, Makefile and CI agree with the tree."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TARGETS = ("setup", "demo", "test", "lint", "bench", "serve", "docs")


def test_every_package_folder_is_packaged() -> None:
    found = set()
    for top, name in (("incomes_plugin", "incomes_plugin"), ("server", "incomes_server")):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / top).parts
            found.add(".".join((name, *parts)))
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == found


def test_gpu_packages_stay_out_of_the_cpu_extra() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert any(line.startswith("xformers") for line in extras["cuda"])
    everywhere = [*PYPROJECT["project"]["dependencies"], *extras["cpu"], *extras["dev"]]
    assert not [line for line in everywhere if re.match(r"xformers|vllm\b(?!-cpu)", line)]


@pytest.mark.parametrize("target", TARGETS)
def test_make_target_sets_up_first(target: str) -> None:
    plan = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "deploy/setup/environment.py" in plan
    assert target == "setup" or plan.index("environment.py") < plan.index(".venv/bin/")


def test_make_alone_lists_the_targets() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(target in shown for target in TARGETS)


def test_ci_runs_lint_and_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make lint test" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)
