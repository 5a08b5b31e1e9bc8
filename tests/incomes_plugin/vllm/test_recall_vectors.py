"""Vectors of recalls in a worker: only where requests beside them keep their bits, and never longer than a recall."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import torch
from vllm.config.compilation import CompilationConfig, CompilationMode, CUDAGraphMode

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.vllm.recalls import RecallVectors, runs_eagerly, say

pytestmark = pytest.mark.vllm
DATA = torch.zeros(2, 4).numpy().tobytes()


class Model(torch.nn.Module):
    def embed_input_ids(self, input_ids):
        return input_ids

    def forward(self, input_ids, inputs_embeds=None):
        return input_ids


class OfTokensOnly(torch.nn.Module):
    def forward(self, input_ids):
        return input_ids


@pytest.mark.parametrize(
    ("mode", "graphs", "eager"),
    [
        (CompilationMode.NONE, CUDAGraphMode.NONE, True),
        (CompilationMode.VLLM_COMPILE, CUDAGraphMode.NONE, False),
        (CompilationMode.STOCK_TORCH_COMPILE, CUDAGraphMode.NONE, False),
        (CompilationMode.NONE, CUDAGraphMode.FULL, False),
        (CompilationMode.VLLM_COMPILE, CUDAGraphMode.PIECEWISE, False),
    ],
)
def test_compiled_code_and_graphs_are_seen(mode, graphs, eager) -> None:
    config = SimpleNamespace(compilation_config=CompilationConfig(mode=mode, cudagraph_mode=graphs))
    assert runs_eagerly(config) is eager


def test_an_engine_that_compiles_takes_no_vectors() -> None:
    """A step on embeddings runs outside compiled code for all its rows: those beside it would get other bits."""
    taken = RecallVectors(Model(), eager=True)
    taken.put("a", DATA, 2)
    assert len(taken) == 1
    refused = RecallVectors(Model(), eager=False)
    with pytest.raises(UnsupportedEngine, match="compiles the model"):
        refused.put("a", DATA, 2)
    assert len(refused) == 0


def test_a_model_of_tokens_only_takes_no_vectors() -> None:
    with pytest.raises(UnsupportedEngine, match="takes no embeddings"):
        RecallVectors(OfTokensOnly(), eager=True).put("a", DATA, 2)


async def test_a_recall_that_is_cancelled_on_its_way_leaves_no_vectors() -> None:
    vectors, arrived = RecallVectors(Model(), eager=True), asyncio.Event()

    async def call(method: str, name: str, *more) -> None:
        if method == "incomes_drop_vectors":
            vectors.drop(name)
            return
        vectors.put(name, *more)
        arrived.set()
        await asyncio.Event().wait()  # its answer does not come

    async def no_output():
        return
        yield

    config = SimpleNamespace(model_config=SimpleNamespace(get_hidden_size=lambda: 4))
    engine = SimpleNamespace(vllm_config=config, generate=lambda *_: no_output())
    recall = asyncio.create_task(anext(say(engine, call, (1,), torch.zeros(2, 4), 3)))
    await arrived.wait()
    assert len(vectors) == 1
    recall.cancel()
    with pytest.raises(asyncio.CancelledError):
        await recall
    assert len(vectors) == 0
