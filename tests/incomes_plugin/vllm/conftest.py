"""Engines shared by the tests of this folder: see `lab.py`. Every name is one configuration of the same tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel
from tests.incomes_plugin.vllm.lab import EDITED, Lab, RemoteEngine
from tests.tiny_model import TinyModel, write_tiny_model

# Prompts of more than 48 tokens are prefilled in chunks; 30 blocks of 32 tokens force preemption when ten requests
# grow to 130 tokens each.
TIGHT: dict[str, Any] = {"max_num_batched_tokens": 48, "max_num_seqs": 12, "num_gpu_blocks_override": 30}


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def routed_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("routed") / "model", TinyModel(routed=True, max_gists=8))


@pytest.fixture(scope="session")
def routed_reference(routed_dir: Path) -> EditableModel:
    return EditableModel.load(routed_dir)


@pytest.fixture(scope="session")
def adapter(model_dir: Path) -> EditAdapter:
    return EditAdapter.load(model_dir)


@pytest.fixture(scope="session")
def reference(model_dir: Path) -> EditableModel:
    return EditableModel.load(model_dir)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture(scope="session")
def fp32(lab: Lab, model_dir: Path) -> RemoteEngine:
    return lab.engine("fp32", model_dir, {**EDITED, "dtype": "float32"})


@pytest.fixture(scope="session")
def tight(lab: Lab, model_dir: Path) -> RemoteEngine:
    return lab.engine("tight", model_dir, {**EDITED, **TIGHT, "dtype": "float32"})


@pytest.fixture(scope="session")
def bf16(lab: Lab, model_dir: Path) -> RemoteEngine:
    return lab.engine("bf16", model_dir, {**EDITED, "dtype": "bfloat16"})


@pytest.fixture(scope="session")
def routed(lab: Lab, routed_dir: Path) -> RemoteEngine:
    return lab.engine("routed", routed_dir, {**EDITED, **TIGHT, "dtype": "float32"})
