"""Recall in the serving engine says what the frozen model says after the same vectors; nothing beside it changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from incomes_plugin.errors import InvalidRequest, UnsupportedEngine
from incomes_plugin.lab.verbatim.decode import greedy
from incomes_plugin.lab.verbatim.frozen import FrozenModel
from tests.incomes_plugin.lab.verbatim.conftest import TEXTS as TEXTS_TO_SAY
from tests.incomes_plugin.lab.verbatim.conftest import cram, job
from tests.incomes_plugin.vllm.lab import Job, Lab, Recall, RemoteEngine, edited
from tests.incomes_plugin.vllm.test_reference import TEXTS, prompt

pytestmark = pytest.mark.vllm
NUM_TOKENS = 12
MANY_VECTORS = 70  # more than one prefill chunk of the tight engine


@pytest.fixture(scope="module")
def frozen(model_dir: Path) -> FrozenModel:
    torch.set_num_threads(1)
    return FrozenModel(model_dir, torch.float32)


def recall_of(frozen: FrozenModel, seed: int, count: int) -> Recall:
    vectors = torch.randn(count, frozen.hidden_size, generator=torch.Generator().manual_seed(seed)) / 2
    return Recall(frozen.template, vectors, NUM_TOKENS)


def said(frozen: FrozenModel, recall: Recall) -> list[int]:
    """By the model itself; up to an end token, where the engine goes on."""
    return greedy(frozen, recall.vectors, recall.num_tokens + 1)


def assert_said(frozen: FrozenModel, recalls: list[Recall], answers: list) -> None:
    for recall, answer in zip(recalls, answers, strict=True):
        expected = said(frozen, recall)
        assert list(answer.tokens)[: len(expected)] == expected
        assert len(answer.tokens) == NUM_TOKENS + 1


def test_it_says_what_the_model_says(fp32: RemoteEngine, frozen: FrozenModel) -> None:
    recalls = [recall_of(frozen, seed, 1 + seed % 4) for seed in range(8)]
    answers, _ = fp32.call("recall", recalls)
    assert_said(frozen, recalls, answers)
    assert len({answer.tokens for answer in answers}) > 1, "the vectors decide"
    again, _ = fp32.call("recall", recalls)
    assert [a.tokens for a in again] == [a.tokens for a in answers]
    assert [a.cached for a in again] == [0] * len(again), "no recall meets another's blocks"
    assert fp32.call("vectors_left") == 0


def test_it_says_crammed_texts_to_the_end(fp32: RemoteEngine, frozen: FrozenModel) -> None:
    crammed = cram(frozen, [job(frozen, text) for text in TEXTS_TO_SAY])
    outcomes = [crammed[text] for text in TEXTS_TO_SAY]
    recalls = [Recall(frozen.template, outcome.vectors, len(outcome.target.ids)) for outcome in outcomes]
    answers, _ = fp32.call("recall", recalls, [Job(prompt(620, 30))])
    assert [list(a.tokens) for a in answers] == [[*o.target.ids, frozen.end_id] for o in outcomes]


def test_chunks_and_preemptions_feed_the_same_vectors(tight: RemoteEngine, frozen: FrozenModel) -> None:
    recalls = [recall_of(frozen, 50 + seed, MANY_VECTORS) for seed in range(8)]
    before = tight.call("preemptions")
    answers, _ = tight.call("recall", recalls, [Job(prompt(700 + i, 60), max_tokens=70) for i in range(6)])
    assert_said(frozen, recalls, answers)
    assert tight.call("preemptions") > before


def test_requests_beside_it_do_not_change_by_a_bit(fp32: RemoteEngine, frozen: FrozenModel) -> None:
    snapshot = fp32.commit("eset_recall", None, fp32.capture(TEXTS))
    jobs = [Job(prompt(600 + i, 20), snapshot if i % 2 else None, max_tokens=12) for i in range(6)]
    alone = fp32.run(jobs)
    _, beside = fp32.call("recall", [recall_of(frozen, seed, 3) for seed in range(4)], jobs)
    assert [a.tokens for a in beside] == [a.tokens for a in alone]
    assert [a.logprobs for a in beside] == [a.logprobs for a in alone]  # exact floats


def test_lost_vectors_say_something_else_and_fail_nobody(fp32: RemoteEngine, frozen: FrozenModel) -> None:
    recall = recall_of(frozen, 3, 4)
    lost = Recall(recall.template, recall.vectors, recall.num_tokens, lost=True)
    (answer,), (other,) = fp32.call("recall", [lost], [Job(prompt(800, 10))])
    assert list(answer.tokens) != said(frozen, recall)
    assert len(other.tokens) == 8


def test_an_engine_that_compiles_says_nothing(model_dir: Path, frozen: FrozenModel) -> None:
    """Requests beside a recall would get other bits than beside any other request."""
    lab = Lab(TORCHDYNAMO_DISABLE="0", VLLM_DISABLE_COMPILE_CACHE="1")
    try:
        options = {**edited(model_dir / "adapter"), "dtype": "float32", "enforce_eager": False}
        engine = lab.engine("compiled", model_dir, options)
        with pytest.raises(UnsupportedEngine, match="compiles the model"):
            engine.call("recall", [recall_of(frozen, 1, 3)])
        assert engine.call("vectors_left") == 0
    finally:
        lab.close()


def test_embeddings_of_a_client_are_refused(fp32: RemoteEngine, frozen: FrozenModel) -> None:
    with pytest.raises(InvalidRequest, match="never embeddings"):
        fp32.call("run_embeddings", torch.zeros(3, frozen.hidden_size))
    with pytest.raises(InvalidRequest, match="incomes_"):
        fp32.call("run_smuggled", (1, 2, 3), {"incomes_recall": "recall-0"})
