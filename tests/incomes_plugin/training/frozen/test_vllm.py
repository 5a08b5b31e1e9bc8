"""A Qwen2 checkpoint made edit-capable, in vLLM: without edits stock to the last bit, with edits the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.training.frozen.recipe import FrozenRecipe
from incomes_plugin.training.frozen.run import FrozenRun
from incomes_plugin.training.run import RunOptions
from tests.incomes_plugin.training.frozen.families import write_base
from tests.incomes_plugin.vllm.lab import EDITED, Job, Lab
from tests.incomes_plugin.vllm.test_reference import FP32, TEXTS, prompt, worst_difference

pytestmark = pytest.mark.vllm

PROMPTS = [Job(prompt(40 + i, 4 + 9 * i), max_tokens=12) for i in range(12)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The base, and the model folder of a run of two steps whose router always reads something."""
    folder = tmp_path_factory.mktemp("qwen2")
    base = write_base(folder / "base", "qwen2")
    recipe = FrozenRecipe(steps=2, max_gists=80, edits_per_batch=4, max_row_tokens=150)
    run = FrozenRun(recipe, RunOptions(folder / "run", None, device="cpu", base=base))
    while run.done < 1:
        run._timed_step()
    run.save()
    adapter = EditAdapter.load(run.model_dir)
    assert adapter.router is not None
    replace(adapter, router=replace(adapter.router, bias=torch.tensor(-50.0))).save(run.model_dir)
    return base, run.model_dir


@pytest.fixture
def stock() -> Iterator[Lab]:
    lab = Lab(VLLM_PLUGINS="")
    yield lab
    lab.close()


@pytest.fixture
def edited() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def test_without_edits_stock_and_with_edits_the_reference(folders: tuple[Path, Path], stock: Lab, edited: Lab) -> None:
    base, model = folders
    expected = stock.engine("base", base, {"dtype": "float32"}).call("run_stock", PROMPTS)
    engine = edited.engine("model", model, {**EDITED, "dtype": "float32"})
    answers = engine.run(PROMPTS)
    assert [a.tokens for a in answers] == [a.tokens for a in expected]
    assert [a.logprobs for a in answers] == [a.logprobs for a in expected]  # exact floats
    reference = EditableModel.load(model)
    snapshot = engine.commit("eset_trained", None, engine.capture(reference.adapter, TEXTS))
    job = Job(prompt(7, 40), snapshot, max_tokens=12)
    (answer,) = engine.run([job])
    pool = ReferencePool.of([reference.capture(ids) for ids in TEXTS.values()])
    assert worst_difference(reference, pool, job.ids, answer) < FP32
    assert worst_difference(reference, None, job.ids, answer) > 0.01  # the edits do something
