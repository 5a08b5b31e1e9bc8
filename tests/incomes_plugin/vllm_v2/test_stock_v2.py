"""The test device itself: vLLM's own V2 runner on CPU says what its V1 runner says, chunked and preempted too."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vllm
LONG = 32  # tokens until four prompts of 40 have outgrown the 8 blocks of the KV cache


def test_runners_are_the_ones_named(stock_v1, stock_v2):
    assert stock_v1.call("runner") == "vllm.v1.worker.cpu_model_runner.CPUModelRunner"
    assert stock_v2.call("runner") == "vllm.v1.worker.cpu.model_runner.CPUModelRunner"


def test_v2_answers_like_v1(stock_v1, stock_v2, prompt, assert_same):
    prompts = [prompt(5, 4), prompt(9, 30), prompt(40, 70)]
    assert_same(*(engine.call("generate", prompts, 6) for engine in (stock_v2, stock_v1)), atol=1e-5)


def test_v2_survives_preemption(stock_v1, stock_v2, prompt, assert_same):
    prompts = [prompt(first, 40) for first in (11, 23, 57, 91)]
    before = stock_v2.call("preemptions")
    answers = [engine.call("generate", prompts, LONG) for engine in (stock_v2, stock_v1)]
    assert stock_v2.call("preemptions") > before
    assert_same(*answers, atol=1e-4)
