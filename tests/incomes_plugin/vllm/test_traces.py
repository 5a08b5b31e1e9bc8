"""Traces: means over the rows that made an answer, each counted once, and over layers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from incomes_plugin.errors import SelectionFailed
from incomes_plugin.vllm.answers import Answers, answer_of
from incomes_plugin.vllm.traces import AnswerTrace, StepTrace, Traces

A, B, C = ("a", 1), ("b", 3), ("c", 1)


def step(*answers: tuple[AnswerTrace, int, list[list[float]]]) -> None:
    """One step: of each answer its first token made here, and the weights of its rows, of two tokens for each edit."""
    rows = [row for _, _, weights in answers for row in weights]
    width = 2 * max(map(len, rows))
    weights = torch.zeros(len(rows), width)
    edit_of = torch.full((len(rows), width), -1)
    spans, at = [], 0
    for trace, first, weights_of in answers:
        spans.append((trace, first, range(at, at + len(weights_of))))
        for row in weights_of:
            for edit, weight in enumerate(row):
                weights[at, 2 * edit : 2 * edit + 2] = torch.tensor([0.25, 0.75]) * weight
                edit_of[at, 2 * edit : 2 * edit + 2] = edit
            at += 1
    StepTrace(weights, edit_of, spans).finish()


def test_rows_beyond_the_answer_do_not_count() -> None:
    trace = AnswerTrace((A, B))
    for token, row in enumerate([[0.2, 0.4], [0.4, 0.8], [1.0, 0.0]]):
        step((trace, token, [row]))
    assert trace.by_edit(2, num_layers=2) == pytest.approx({A: 0.15, B: 0.3})
    assert trace.by_edit(0, num_layers=2) == {}
    with pytest.raises(SelectionFailed, match="4 tokens has the weights of 3 rows"):
        trace.by_edit(4, num_layers=2)


def test_a_row_that_is_computed_again_counts_once() -> None:
    trace, other = AnswerTrace((A, B)), AnswerTrace((C,))
    step((trace, 0, [[0.2, 0.4]]), (other, 0, [[0.5]]))
    step((other, 1, [[0.1]]), (trace, 1, [[0.4, 0.2]]))
    step((trace, 0, [[0.2, 0.4], [0.4, 0.2], [0.6, 0.0]]))  # resumed: two rows again, and the next
    assert trace.by_edit(3, num_layers=1) == pytest.approx({A: 0.4, B: 0.2})
    assert other.by_edit(2, num_layers=1) == pytest.approx({C: 0.3})


def test_an_answer_of_one_pick_counts_alike_beside_one_of_more_and_alone() -> None:
    one, two = AnswerTrace((C,)), AnswerTrace((A, B))
    step((one, 0, [[0.5]]), (two, 0, [[0.2, 0.4]]))
    step((one, 1, [[0.1]]))
    step((two, 1, [[0.4, 0.2]]))
    assert one.by_edit(2, num_layers=1) == pytest.approx({C: 0.3})
    assert two.by_edit(2, num_layers=1) == pytest.approx({A: 0.3, B: 0.3})


def test_a_trace_is_the_mean_of_its_answers_and_belongs_to_its_first_owner() -> None:
    traces, trace, foreign = Traces(num_layers=2), AnswerTrace((A, B)), AnswerTrace((C,))
    traces.add("t", "snap", (0, 0), trace)
    traces.add("t", "snap", (0, 1), AnswerTrace(()))  # the second answer picked nothing
    traces.add("t", "other", (0, 2), foreign)
    step((trace, 0, [[0.4, 0.8]]), (foreign, 0, [[1.0]]))
    found = traces.take("t", {(0, 0): 1, (0, 1): 7, (0, 2): 1})
    assert found is not None
    assert {(e, v): w for e, v, w in found.mean.applied} == pytest.approx({A: 0.1, B: 0.2})
    assert found.mean.none_weight == pytest.approx(0.7)
    assert list(found.answers) == [(0, 0), (0, 1)]
    assert {(e, v): w for e, v, w in found.answers[0, 0].applied} == pytest.approx({A: 0.2, B: 0.4})
    assert (found.answers[0, 1].applied, found.answers[0, 1].none_weight) == ([], 1.0)
    assert traces.take("t", {}) is None


def test_any_number_of_traces_is_kept() -> None:
    traces = Traces(num_layers=2)
    for i in range(10_000):
        traces.add(str(i), "snap", (0, 0), AnswerTrace(()))
    assert all(traces.take(str(i), {(0, 0): 1}) for i in range(10_000))


def test_answers_are_counted_when_they_are_taken() -> None:
    answers, tokens = Answers(), [1, 2]
    state = SimpleNamespace(detokenizer=SimpleNamespace(num_output_tokens=lambda: len(tokens)))
    for request_id, prompt in (("0_cmpl-1-4-9f", 4), ("1_cmpl-1-4-9f", 4), ("cmpl-1-0-9f", 0)):
        extra = {"incomes_trace": "t", "incomes_prompt": prompt}
        request = SimpleNamespace(request_id=request_id, sampling_params=SimpleNamespace(extra_args=extra))
        answers.follow(request, state)
    answers.follow(SimpleNamespace(request_id="x", sampling_params=None), state)
    answers.follow(SimpleNamespace(request_id="x", sampling_params=SimpleNamespace(extra_args=None)), state)
    tokens.append(3)
    assert answers.take("t") == {(4, 0): 3, (4, 1): 3, (0, 0): 3}
    assert answers.take("t") == {}


@pytest.mark.parametrize(("request_id", "answer"), [("chatcmpl-a1-9f", 0), ("0_cmpl-x-0-9f", 0), ("12_chatcmpl-a", 12)])
def test_answer_of(request_id: str, answer: int) -> None:
    assert answer_of(request_id) == answer
