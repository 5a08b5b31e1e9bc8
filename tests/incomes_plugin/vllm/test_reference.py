"""vLLM with the selection layer against the float32 reference: the same gists, picks and log-probabilities."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from incomes_plugin.errors import SelectionFailed
from incomes_plugin.gist import Gist
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.pool.snapshot import SnapshotRef
from tests.incomes_plugin.vllm.lab import Answer, Job, Lab, RemoteEngine, edited

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
    assert ours.spelling.rows == expected.spelling.rows


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


def test_routing_is_told_where_lines_of_a_question_begin(
    fp32: RemoteEngine, blobs: dict[str, bytes], reference: EditableModel
) -> None:
    template = reference.adapter.template
    end = template.line_ends[0]
    snapshot = fp32.commit("eset_lines", None, blobs)
    fp32.call("watch_picks")
    fp32.call("watched_lines")
    for question, lines in (((30, 31, end, end, 32, 33, end), (4,)), ((30, 31), ())):
        fp32.run([Job((*template.turn_prefix, *question, *template.answer_prefix), snapshot, max_tokens=2)])
        assert fp32.call("watched_lines") == [lines]


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


def test_answers_differ_from_those_that_copy_nothing(
    fp32: RemoteEngine, blobs: dict[str, bytes], reference: EditableModel, pool: ReferencePool
) -> None:
    snapshot, ids = fp32.commit("eset_inert", None, blobs), prompt(3, 30)
    fp32.call("break_copying", "inert")
    (inert,) = fp32.run([Job(ids, snapshot)])
    fp32.call("break_copying", None)
    (copying,) = fp32.run([Job(ids, snapshot)])
    assert worst_difference(reference, pool, ids, copying) < FP32
    assert worst_difference(reference, pool, ids, inert) > 0.1


@pytest.mark.parametrize(
    "sampling",
    [
        pytest.param({"repetition_penalty": 1.5}, id="a repetition penalty"),
        pytest.param({"logit_bias": {42: 8.0, 43: -8.0}}, id="a bias"),
        pytest.param({"allowed_token_ids": list(range(60, 90))}, id="some tokens alone"),
    ],
)
def test_what_shapes_an_answer_works_on_logits_that_copy(
    parrot: RemoteEngine, parrot_dir: Path, reference: EditableModel, sampling: dict[str, Any]
) -> None:
    copies = EditableModel(reference.model, EditAdapter.load(parrot_dir), reference.spell)
    blobs = parrot.capture(TEXTS)
    snapshot, pool, ids = (
        parrot.commit(f"eset_{min(sampling)}", None, blobs),
        copies.pool(parrot.gists(blobs)),
        prompt(5, 30),
    )
    (answer,) = parrot.run([Job(ids, snapshot, max_tokens=20, sampling=sampling)])
    assert worst_difference(copies, pool, ids, answer) < FP32
    for step, token in enumerate(answer.tokens):
        known = [*ids, *answer.tokens[:step]]
        logits = shaped(copies.logits(known, pool, len(ids))[-1], known, sampling)
        assert float(logits[token]) > float(logits.max()) - FP32


def shaped(logits: torch.Tensor, known: Sequence[int], sampling: Mapping[str, Any]) -> torch.Tensor:
    """As vLLM does before it samples."""
    logits, said, penalty = logits.clone(), list(set(known)), sampling.get("repetition_penalty", 1.0)
    logits[said] = torch.where(logits[said] > 0, logits[said] / penalty, logits[said] * penalty)
    for token, bias in sampling.get("logit_bias", {}).items():
        logits[token] += bias
    allowed = sampling.get("allowed_token_ids", list(range(len(logits))))
    return torch.full_like(logits, -torch.inf).index_copy(0, torch.tensor(allowed), logits[allowed])


def test_logits_that_nothing_was_copied_into_end_the_engine(lab: Lab, model_dir: Path) -> None:
    bypassed = lab.engine("bypassed", model_dir, {**edited(model_dir / "adapter"), "dtype": "float32"})
    snapshot = bypassed.commit("eset_bypassed", None, bypassed.capture(TEXTS))
    bypassed.call("break_copying", "bypassed")
    with pytest.raises(SelectionFailed, match="nothing copied"):
        bypassed.run([Job(prompt(4, 30), snapshot)])


@pytest.mark.parametrize("length", [7, 60, 100])  # one chunk, two, three
def test_prompt_logprobs_are_those_of_the_base(
    tight: RemoteEngine, blobs: dict[str, bytes], reference: EditableModel, pool: ReferencePool, length: int
) -> None:
    snapshot = tight.commit(f"eset_prompt_{length}", None, blobs)
    jobs = [Job(prompt(length + i, length), snapshot if i % 2 else None, prompt_logprobs=3) for i in range(4)]
    assert_prompt_logprobs(reference, {snapshot: pool, None: None}, jobs, tight.run(jobs))


def assert_prompt_logprobs(
    reference: EditableModel, pools: Mapping[SnapshotRef | None, ReferencePool | None], jobs: list[Job], answers: list
) -> None:
    for job, answer in zip(jobs, answers, strict=True):
        assert worst_difference(reference, pools[job.snapshot], job.ids, answer) < FP32
        plain = reference.logits(job.ids).log_softmax(-1)
        assert answer.prompt_logprobs[0] is None
        for row, entry in enumerate(answer.prompt_logprobs[1:]):
            assert entry == pytest.approx({token: float(plain[row, token]) for token in entry}, abs=FP32)


def test_what_was_said_last_decides_what_is_copied(
    parrot: RemoteEngine, parrot_dir: Path, reference: EditableModel
) -> None:
    """Requests of several lengths and picks, in chunks and with preemptions, all of which say edits on."""
    copies = EditableModel(reference.model, EditAdapter.load(parrot_dir), reference.spell)
    texts = {f"edit_{i}": list(prompt(70 + i, 40)) for i in range(5)}
    blobs = parrot.capture(texts)
    snapshot, pool = parrot.commit("eset_parrot", None, blobs), copies.pool(parrot.gists(blobs))
    before = parrot.call("preemptions")
    jobs = [Job(prompt(600 + seed, 70 + seed), snapshot if seed % 4 else None, max_tokens=50) for seed in range(10)]
    answers = parrot.run(jobs)
    assert parrot.call("preemptions") > before
    for job, answer in zip(jobs, answers, strict=True):
        assert worst_difference(copies, pool if job.snapshot else None, job.ids, answer) < FP32
        if job.snapshot:
            assert_says_edits_on(answer.tokens, pool.gists)


def assert_says_edits_on(tokens: tuple[int, ...], gists: Sequence[Gist]) -> None:
    """Wherever two tokens were said that stand in an edit, one of those follows that stand there behind them."""
    following: dict[tuple[int, int], set[int]] = {}
    for gist in gists:
        for token, one, two, *_ in gist.spelling.table().tolist():
            following.setdefault((two, one), set()).add(token)
    said = zip(tokens, tokens[1:], tokens[2:], strict=False)
    known = [(following[a, b], token) for a, b, token in said if (a, b) in following]
    assert len(known) > 20
    assert all(token in expected for expected, token in known)


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
