"""vLLM with the selection layer against the float32 reference: the same gists, the same log-probabilities."""

from __future__ import annotations

import random

import pytest
import torch

from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel, ReferencePool
from tests.incomes_plugin.vllm.lab import Answer, Job, RemoteEngine

pytestmark = pytest.mark.vllm

TEXTS = {f"edit_{i}": [20 + (i * 13 + j * 7) % 200 for j in range(2 + i * 3 % 11)] for i in range(12)}
FP32 = 2e-4
BF16 = 0.15


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(10, 250), k=length))


@pytest.fixture(scope="module")
def pool(reference: EditableModel) -> ReferencePool:
    return ReferencePool.of([reference.capture(ids) for ids in TEXTS.values()])


def worst_difference(
    reference: EditableModel, pool: ReferencePool | None, ids: tuple[int, ...], answer: Answer
) -> float:
    """Largest log-probability difference over all positions, teacher-forced with the engine's own tokens."""
    logits = reference.logits([*ids, *answer.tokens], pool).log_softmax(-1)
    return max(
        abs(value - float(logits[len(ids) - 1 + step, token]))
        for step, entry in enumerate(answer.logprobs)
        for token, value in entry.items()
    )


def test_gists_equal_the_reference(fp32: RemoteEngine, adapter: EditAdapter, reference: EditableModel) -> None:
    for gist in fp32.gists(fp32.capture(adapter, TEXTS)):
        expected = reference.capture(TEXTS[gist.edit_id])
        torch.testing.assert_close(gist.keys, expected.keys, atol=1e-4, rtol=0)
        torch.testing.assert_close(gist.values, expected.values, atol=1e-4, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 33, 200])
def test_prefill_and_decode(
    fp32: RemoteEngine, adapter: EditAdapter, reference: EditableModel, pool: ReferencePool, length: int
) -> None:
    snapshot = fp32.commit(f"eset_{length}", None, fp32.capture(adapter, TEXTS))
    ids = prompt(length, length)
    edited, plain = fp32.run([Job(ids, snapshot, max_tokens=12), Job(ids, max_tokens=12)])
    assert worst_difference(reference, pool, ids, edited) < FP32
    assert worst_difference(reference, None, ids, plain) < FP32
    assert worst_difference(reference, None, ids, edited) > 0.1  # the edits do something


def test_bf16_is_as_close_as_bf16_can_be(
    bf16: RemoteEngine, adapter: EditAdapter, reference: EditableModel, pool: ReferencePool
) -> None:
    snapshot = bf16.commit("eset_bf16", None, bf16.capture(adapter, TEXTS))
    for seed in range(4):
        ids = prompt(seed, 60)
        edited, plain = bf16.run([Job(ids, snapshot), Job(ids)])
        assert worst_difference(reference, pool, ids, edited) < BF16
        assert worst_difference(reference, None, ids, plain) < BF16


def test_chunked_prefill_and_preemption(
    tight: RemoteEngine, adapter: EditAdapter, reference: EditableModel, pool: ReferencePool
) -> None:
    snapshot = tight.commit("eset_tight", None, tight.capture(adapter, TEXTS))
    before = tight.call("preemptions")
    jobs = [Job(prompt(seed, 70 + seed), snapshot if seed % 3 else None, max_tokens=50) for seed in range(10)]
    answers = tight.run(jobs)
    assert tight.call("preemptions") > before
    for job, answer in zip(jobs, answers, strict=True):
        assert len(answer.tokens) == 50
        assert worst_difference(reference, pool if job.snapshot else None, job.ids, answer) < FP32


def test_gists_that_span_chunks(tight: RemoteEngine, adapter: EditAdapter, reference: EditableModel) -> None:
    texts = {f"long_{n}": list(prompt(n, n)) for n in (44, 45, 46, 47, 92, 120)}  # 48 tokens a chunk
    for gist in tight.gists(tight.capture(adapter, texts)):
        expected = reference.capture(texts[gist.edit_id])
        torch.testing.assert_close(gist.keys, expected.keys, atol=1e-4, rtol=0)
        torch.testing.assert_close(gist.values, expected.values, atol=1e-4, rtol=0)


def test_capturing_a_text_again_ignores_the_prefix_cache(
    fp32: RemoteEngine, adapter: EditAdapter, reference: EditableModel
) -> None:
    text = {"again": list(prompt(5, 150))}
    for _ in range(2):
        (gist,) = fp32.gists(fp32.capture(adapter, text))
        torch.testing.assert_close(gist.keys, reference.capture(text["again"]).keys, atol=1e-4, rtol=0)
    (probe,) = fp32.run([Job(tuple(adapter.capture_ids(text["again"])))])
    assert probe.cached == 0  # the text of an edit cannot be found out through cache hits
