"""A tiny base with its adapter for the harness, and no data folder."""

from __future__ import annotations

import pytest

from incomes_plugin.lab.evaluation import unrelated
from incomes_plugin.lab.evaluation.backends.hf import HfGenerator
from incomes_plugin.model.resolve import Served
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    base_dir = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    return Served(base_dir, base_dir / "adapter")


@pytest.fixture(scope="session")
def generator(served: Served) -> HfGenerator:
    return HfGenerator(served.base_dir, served.adapter_dir, 4096)


@pytest.fixture
def few_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unrelated, "UNRELATED_PROMPTS", ("Hello", "Why?"))
