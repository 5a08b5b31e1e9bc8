"""Engines shared by the tests of this folder: see `lab.py`. Every name is one configuration of the same tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel
from tests.incomes_plugin.vllm.lab import Lab, RemoteEngine, edited
from tests.tiny_model import TinyModel, write_tiny_model

# Prompts of more than 48 tokens are prefilled in chunks; 30 blocks of 32 tokens force preemption when ten requests
# grow to 130 tokens each.
TIGHT: dict[str, Any] = {"max_num_batched_tokens": 48, "max_num_seqs": 12, "num_gpu_blocks_override": 30}


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def silent_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same base, with an adapter whose verifier accepts nothing."""
    return write_tiny_model(tmp_path_factory.mktemp("silent") / "model", TinyModel(threshold=100.0))


@pytest.fixture(scope="session")
def parrot_dir(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the same base that always copies: of the picks' tokens one that follows what has been said."""
    adapter = EditAdapter.load(model_dir / "adapter")
    adapter.copier.query.zero_()
    adapter.copier.sentinel_bias.fill_(-60.0)
    adapter.copier.match.fill_(15.0)
    folder = tmp_path_factory.mktemp("parrot") / "adapter"
    adapter.save(folder)
    return folder


@pytest.fixture(scope="session")
def adapter(model_dir: Path) -> EditAdapter:
    return EditAdapter.load(model_dir / "adapter")


@pytest.fixture(scope="session")
def reference(model_dir: Path) -> EditableModel:
    return EditableModel.load(model_dir, model_dir / "adapter")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture(scope="session")
def fp32(lab: Lab, model_dir: Path) -> RemoteEngine:
    return lab.engine("fp32", model_dir, {**edited(model_dir / "adapter"), "dtype": "float32"})


@pytest.fixture(scope="session")
def parrot(lab: Lab, model_dir: Path, parrot_dir: Path) -> RemoteEngine:
    return lab.engine("parrot", model_dir, {**edited(parrot_dir), **TIGHT, "dtype": "float32"})


@pytest.fixture(scope="session")
def tight(lab: Lab, model_dir: Path) -> RemoteEngine:
    return lab.engine("tight", model_dir, {**edited(model_dir / "adapter"), **TIGHT, "dtype": "float32"})


@pytest.fixture(scope="session")
def bf16(lab: Lab, model_dir: Path) -> RemoteEngine:
    return lab.engine("bf16", model_dir, {**edited(model_dir / "adapter"), "dtype": "bfloat16"})


@pytest.fixture(scope="session")
def uncached(lab: Lab, model_dir: Path) -> RemoteEngine:
    """Computes every prompt anew."""
    options = {**edited(model_dir / "adapter"), "dtype": "float32", "enable_prefix_caching": False}
    return lab.engine("uncached", model_dir, options)


@pytest.fixture(scope="session")
def stock_lab() -> Iterator[Lab]:
    """A process that never loads the plugin."""
    lab = Lab(VLLM_PLUGINS="")
    yield lab
    lab.close()
