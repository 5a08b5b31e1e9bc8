"""Engines of the tiny model on vLLM's V2 runner, in a child process: see `triton_cpu.py` and `vllm/lab.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.incomes_plugin.vllm.conftest import adapter, model_dir, parrot_dir, reference, silent_dir  # noqa: F401
from tests.incomes_plugin.vllm.lab import Lab, RemoteEngine, edited
from tests.incomes_plugin.vllm_v2.child import V2Engine

# Tight on purpose: prompts of more than 48 tokens are prefilled in chunks, and 8 blocks of 32 tokens force preemption
# when four requests grow to 90 tokens each.
OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 128,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 48,
    "num_gpu_blocks_override": 9,
}


@pytest.fixture(scope="session")
def v2_lab() -> Iterator[Lab]:
    lab = Lab(V2Engine, VLLM_USE_V2_MODEL_RUNNER="1", TRITON_INTERPRET="1")
    yield lab
    lab.close()


@pytest.fixture(scope="session")
def stock(v2_lab: Lab, model_dir: Path) -> RemoteEngine:  # noqa: F811
    """V2 with vLLM's own worker."""
    return v2_lab.engine("stock", model_dir, OPTIONS)


@pytest.fixture(scope="session")
def edits(v2_lab: Lab, model_dir: Path) -> RemoteEngine:  # noqa: F811
    """V2 with the selection layer."""
    return v2_lab.engine("edits", model_dir, {**OPTIONS, **edited(model_dir / "adapter")})
