"""Requests that read nothing are bit-identical to stock vLLM, which runs in a process that never loads the plugin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.incomes_plugin.vllm.lab import Job, Lab, RemoteEngine, edited
from tests.incomes_plugin.vllm.test_reference import TEXTS, prompt

pytestmark = pytest.mark.vllm

PROMPTS = [Job(prompt(100 + i, 3 + 5 * i % 160), max_tokens=16) for i in range(50)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fifty_prompts_without_edits(lab: Lab, stock_lab: Lab, model_dir: Path, dtype: str) -> None:
    stock = stock_lab.engine(dtype, model_dir, {"dtype": dtype})
    name = {"float32": "fp32", "bfloat16": "bf16"}[dtype]
    ours = lab.engine(name, model_dir, {**edited(model_dir / "adapter"), "dtype": dtype})
    expected = stock.call("run_stock", PROMPTS)
    assert stock.call("modules") == []
    answers = ours.run(PROMPTS)
    assert [a.tokens for a in answers] == [a.tokens for a in expected]
    assert [a.logprobs for a in answers] == [a.logprobs for a in expected]  # exact floats


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_requests_that_pick_nothing(lab: Lab, stock_lab: Lab, silent_dir: Path, dtype: str) -> None:
    """Routing runs and reads the KV cache, and changes no bit of it."""
    stock = stock_lab.engine(f"silent-{dtype}", silent_dir, {"dtype": dtype})
    silent = lab.engine(f"silent-{dtype}", silent_dir, {**edited(silent_dir / "adapter"), "dtype": dtype})
    snapshot = silent.commit("eset_silent", None, silent.capture(TEXTS))
    expected = stock.call("run_stock", PROMPTS)
    answers = silent.run([replace(job, snapshot=snapshot, trace=f"silent-{i}") for i, job in enumerate(PROMPTS)])
    assert [a.tokens for a in answers] == [a.tokens for a in expected]
    assert [a.logprobs for a in answers] == [a.logprobs for a in expected]  # exact floats
    found = silent.call("take_trace", "silent-0").mean
    assert (found.none_weight, found.applied) == (1.0, [])


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_rows_beside_edited_rows_do_not_change_by_a_bit(dtype: str, request: pytest.FixtureRequest) -> None:
    """Not even where logits become float32 because others copy."""
    engine: RemoteEngine = request.getfixturevalue(dtype)
    snapshot = engine.commit("eset_beside", None, engine.capture(TEXTS))
    plain = [Job(prompt(300 + i, 20), max_tokens=12) for i in range(8)]
    mixed = [replace(job, snapshot=snapshot if i % 2 else None) for i, job in enumerate(plain)]
    alone, beside = engine.run(plain), engine.run(mixed)
    for i, (a, b) in enumerate(zip(alone, beside, strict=True)):
        assert (a.logprobs == b.logprobs) == (i % 2 == 0)


def test_prompt_logits_do_not_depend_on_edits(fp32: RemoteEngine) -> None:
    """What a prompt's tokens before the last put into the KV cache is stock's: so a stock request behind an edited one
    that shares its blocks is stock's to the bit."""
    snapshot = fp32.commit("eset_shared", None, fp32.capture(TEXTS))
    ids = prompt(400, 100)
    first, shared = fp32.run([Job(ids, snapshot), Job(ids)], together=False)
    alone, again = fp32.run([Job(prompt(401, 100)), Job(prompt(401, 100))], together=False)
    assert (first.cached, shared.cached) == (alone.cached, again.cached) == (0, 96)
    other_first = fp32.run([Job(ids, salt="other"), Job(ids, salt="other")], together=False)
    assert other_first[1].cached == 96
    assert shared.logprobs == other_first[1].logprobs
