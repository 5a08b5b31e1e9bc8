"""Requests without edits are bit-identical to stock vLLM, which runs in a process that never loads the plugin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from incomes_plugin.model.adapter import EditAdapter
from tests.incomes_plugin.vllm.lab import EDITED, Job, Lab, RemoteEngine
from tests.incomes_plugin.vllm.test_reference import TEXTS, prompt

pytestmark = pytest.mark.vllm

PROMPTS = [Job(prompt(100 + i, 3 + 5 * i % 160), max_tokens=16) for i in range(50)]


@pytest.fixture(scope="module")
def stock_lab() -> Iterator[Lab]:
    lab = Lab(VLLM_PLUGINS="")
    yield lab
    lab.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fifty_prompts_with_an_empty_scope(lab: Lab, stock_lab: Lab, model_dir: Path, dtype: str) -> None:
    stock = stock_lab.engine(dtype, model_dir, {"dtype": dtype})
    edited = lab.engine({"float32": "fp32", "bfloat16": "bf16"}[dtype], model_dir, {**EDITED, "dtype": dtype})
    expected = stock.call("run_stock", PROMPTS)
    assert stock.call("modules") == []
    answers = edited.run(PROMPTS)
    assert [a.tokens for a in answers] == [a.tokens for a in expected]
    assert [a.logprobs for a in answers] == [a.logprobs for a in expected]  # exact floats


def test_rows_beside_edited_rows_do_not_change_by_a_bit(fp32: RemoteEngine, adapter: EditAdapter) -> None:
    snapshot = fp32.commit("eset_beside", None, fp32.capture(adapter, TEXTS))
    plain = [Job(prompt(300 + i, 20), max_tokens=12, user_salt=None) for i in range(8)]
    mixed = [Job(j.ids, snapshot if i % 2 else None, max_tokens=12) for i, j in enumerate(plain)]
    alone, beside = fp32.run(plain), fp32.run(mixed)
    for i, (a, b) in enumerate(zip(alone, beside, strict=True)):
        assert (a.logprobs == b.logprobs) == (i % 2 == 0)
