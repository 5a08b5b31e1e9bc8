"""The Kustomize base is what the chart renders now, and holds all it lists."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RENDER = ROOT / "deploy" / "helm" / "render.py"
BASE = ROOT / "deploy" / "kustomize" / "base"


def render_module() -> Any:
    spec = importlib.util.spec_from_file_location("render", RENDER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_schema_and_base_are_current() -> None:
    """`python deploy/helm/render.py` mends it."""
    expected = render_module().expected()
    assert {path.relative_to(ROOT): path.read_text() for path in expected if path.is_file()} == {
        path.relative_to(ROOT): text for path, text in expected.items()
    }
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted(path.name for path in BASE.glob("*.yaml")) == sorted([*listed, "kustomization.yaml"])


def test_nothing_speaks_of_helm() -> None:
    assert [path.name for path in BASE.glob("*-*.yaml") if "helm.sh/" in path.read_text()] == []


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl, so the base is not built by Kustomize itself")
def test_kustomize_builds_it() -> None:
    built = subprocess.run(["kubectl", "kustomize", str(BASE)], capture_output=True, text=True, check=True).stdout
    objects = [found for found in yaml.safe_load_all(built) if found]
    assert {found["metadata"]["namespace"] for found in objects} == {"incomes"}
    assert len(objects) == len(yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"])
