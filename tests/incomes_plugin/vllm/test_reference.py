"""vLLM with the selection layer against the float32 reference: the same gists, picks and log-probabilities."""

from __future__ import annotations

import random

import pytest
import torch

from incomes_plugin.gist import Gist
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel, ReferencePool
from tests.incomes_plugin.vllm.lab import Answer, Job, RemoteEngine

pytestmark = pytest.mark.vllm

TEXTS = {f"edit_{i}": [20 + (i * 13 + j * 7) % 200 for j in range(2 + i * 3 % 11)] for i in range(11)}
TEXTS["edit_long"] = [20 + (5 * j) % 211 for j in range(90)]  # more than the verifier looks at
FP32 = 2e-4
BF16 = 0.2


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(10, 250), k=length))


def chat(adapter: EditAdapter, seed: int, length: int, before: int = 0) -> tuple[int, ...]:
    """A user turn of `length` tokens as the template frames it, behind some other text."""
    template = adapter.template
    return (*prompt(seed + 1000, before), *template.turn_prefix, *prompt(seed, length), *template.answer_prefix)


def assert_gists_equal(ours: Gist, expected: Gist) -> None:
    """A number close to the middle between two steps of 8 bits may be rounded either way."""
    for name in ("features", "latents"):
        packed, other = getattr(ours, name), getattr(expected, name)
        steps = (packed.unpack() - other.unpack()).abs() / other.scale.float()[..., None]
        assert packed.data.shape == other.data.shape
        assert float(steps.max()) < 1.1
        assert float((steps > 0.1).float().mean()) < 0.01


def worst_difference(
    reference: EditableModel, pool: ReferencePool | None, ids: tuple[int, ...], answer: Answer
) -> float:
    """Largest log-probability difference over all positions, teacher-forced with the engine's own tokens."""
    logits = reference.logits([*ids, *answer.tokens], pool, len(ids)).log_softmax(-1)
    return max(
        abs(value - float(logits[len(ids) - 1 + step, token]))
        for step, entry in enumerate(answer.logprobs)
        for token, value in entry.items()
    )


@pytest.fixture(scope="module")
def blobs(fp32: RemoteEngine) -> dict[str, bytes]:
    return fp32.capture(TEXTS)


@pytest.fixture(scope="module")
def pool(fp32: RemoteEngine, blobs: dict[str, bytes], reference: EditableModel) -> ReferencePool:
    return reference.pool(fp32.gists(blobs))


def test_gists_equal_the_reference(fp32: RemoteEngine, blobs: dict[str, bytes], reference: EditableModel) -> None:
    for gist in fp32.gists(blobs):
        assert_gists_equal(gist, reference.capture(TEXTS[gist.edit_id]))


@pytest.mark.parametrize("length", [1, 2, 33, 64, 200])
def test_picks_prefill_and_decode(
    fp32: RemoteEngine, blobs: dict[str, bytes], reference: EditableModel, pool: ReferencePool, length: int
) -> None:
    snapshot = fp32.commit(f"eset_{length}", None, blobs)
    for ids in (prompt(length, length), chat(reference.adapter, length, length, before=40)):
        fp32.call("watch_picks")
        edited, plain = fp32.run([Job(ids, snapshot, max_tokens=12), Job(ids, max_tokens=12)])
        assert worst_difference(reference, pool, ids, edited) < FP32
        assert_picks_equal(fp32.call("watched_picks"), reference, pool)
        assert worst_difference(reference, None, ids, plain) < FP32
        assert worst_difference(reference, None, ids, edited) > 0.1  # the edits do something
        logits = reference.logits([*ids, *edited.tokens], pool, len(ids))
        assert list(edited.tokens) == logits[len(ids) - 1 : -1].argmax(-1).tolist()


def assert_picks_equal(found: list, reference: EditableModel, pool: ReferencePool) -> None:
    """The picks of one request against those of the reference's last prompt."""
    ((edits, bias, logits),) = found
    picks = reference.picks
    assert edits == [pool.gists[row].edit_id for row in picks.edits]
    assert bias == pytest.approx(picks.bias.tolist(), abs=1e-3)
    names = [pool.gists[row].edit_id for row in picks.candidates]
    assert logits == pytest.approx(dict(zip(names, picks.logits.tolist(), strict=True)), abs=1e-3)


def test_bf16_is_as_close_as_bf16_can_be(bf16: RemoteEngine, reference: EditableModel) -> None:
    """A pool of one edit, which is always picked: bfloat16 may turn the order of the verifier's logits."""
    one = {"edit_long": TEXTS["edit_long"]}
    blobs = bf16.capture(one)
    snapshot, pool = bf16.commit("eset_bf16", None, blobs), reference.pool(bf16.gists(blobs))
    for seed in range(4):
        ids = prompt(seed, 60)
        edited, plain = bf16.run([Job(ids, snapshot), Job(ids)])
        assert worst_difference(reference, pool, ids, edited) < BF16
        assert worst_difference(reference, None, ids, plain) < BF16


def test_mixed_batch_chunked_prefill_and_preemption(
    tight: RemoteEngine, blobs: dict[str, bytes], reference: EditableModel, pool: ReferencePool
) -> None:
    snapshot = tight.commit("eset_tight", None, blobs)
    before = tight.call("preemptions")
    jobs = [Job(prompt(seed, 70 + seed), snapshot if seed % 3 else None, max_tokens=50) for seed in range(10)]
    answers = tight.run(jobs)
    assert tight.call("preemptions") > before
    for job, answer in zip(jobs, answers, strict=True):
        assert len(answer.tokens) == 50
        assert worst_difference(reference, pool if job.snapshot else None, job.ids, answer) < FP32


def test_captures_that_span_chunks(tight: RemoteEngine, reference: EditableModel) -> None:
    texts = {f"long_{n}": list(prompt(n, n)) for n in (20, 36, 45, 47, 92, 120)}  # 48 tokens a chunk
    for gist in tight.gists(tight.capture(texts)):
        assert_gists_equal(gist, reference.capture(texts[gist.edit_id]))


def test_capturing_a_text_again_ignores_the_prefix_cache(
    fp32: RemoteEngine, adapter: EditAdapter, reference: EditableModel
) -> None:
    text = {"again": list(prompt(5, 150))}
    for _ in range(2):
        (gist,) = fp32.gists(fp32.capture(text))
        assert_gists_equal(gist, reference.capture(text["again"]))
    (probe,) = fp32.run([Job(tuple(adapter.template.capture_ids(text["again"])))])
    assert probe.cached == 0  # the text of an edit cannot be found out through cache hits


def test_layers_equal_the_formula(adapter: EditAdapter) -> None:
    """The fast path against `selection.reading.read`, padding and all."""
    from incomes_plugin.selection.reading import read
    from incomes_plugin.vllm.layer import ReadingLayer

    shape, reader = adapter.shape, adapter.reader
    rows, width, index = 5, 9, 1
    random_ = torch.Generator().manual_seed(3)
    query, own = (torch.randn(rows, adapter.num_heads, shape.head_dim, generator=random_) for _ in range(2))
    keys = torch.randn(rows, shape.num_kv_heads, width, shape.head_dim, generator=random_)
    values = torch.randn(rows, shape.num_kv_heads, width, shape.head_dim, generator=random_)
    bias = torch.randn(rows, width, generator=random_)
    bias[0, 4:] = bias[3, 1:] = -torch.inf
    expected = read(
        query, keys, values, bias, reader.query_map[index], reader.output_map[index],
        reader.zero_query[index], reader.zero_bias[index],
    )  # fmt: skip
    layer = ReadingLayer(index, reader, None, slice(None))
    mixed, weights = layer.mix(own, query, keys.transpose(-1, -2), values, bias[:, None, None])
    gate = expected.gate[..., None]
    torch.testing.assert_close(mixed, (1 - gate) * own + gate * expected.output, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights, gate * expected.weights, atol=1e-6, rtol=1e-5)
