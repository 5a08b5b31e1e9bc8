"""Recall under the V2 model runner: the tokens of the frozen model, in prefill chunks and beside other requests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from incomes_plugin.lab.verbatim.frozen import FrozenModel
from tests.incomes_plugin.vllm.lab import Job, RemoteEngine
from tests.incomes_plugin.vllm.test_recalls import MANY_VECTORS, assert_said, recall_of
from tests.incomes_plugin.vllm.test_reference import prompt

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def frozen(model_dir: Path) -> FrozenModel:
    torch.set_num_threads(1)
    return FrozenModel(model_dir, torch.float32)


def test_it_says_what_the_model_says(edits: RemoteEngine, frozen: FrozenModel) -> None:
    recalls = [recall_of(frozen, seed, count) for seed, count in enumerate((1, 4, MANY_VECTORS))]
    jobs = [Job(prompt(500 + i, 12)) for i in range(2)]
    alone = edits.run(jobs)
    answers, beside = edits.call("recall", recalls, jobs)
    assert_said(frozen, recalls, answers)
    assert [a.logprobs for a in beside] == [a.logprobs for a in alone]  # exact floats
    assert edits.call("vectors_left") == 0
    assert edits.call("dummy_run") is False
