"""Which tokens of a prompt are the question."""

from __future__ import annotations

import pytest

from incomes_plugin.selection.question import PromptTemplate

SYSTEM, USER, END, ANSWER = 90, 91, 92, 93
TEMPLATE = PromptTemplate((SYSTEM, 1), (END, 2), (USER, 3), (END, 2, ANSWER))


def turn(*text: int) -> list[int]:
    return [USER, 3, *text]


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        pytest.param([*turn(10, 11, 12), END, 2, ANSWER], [10, 11, 12], id="one turn"),
        pytest.param([SYSTEM, 1, 7, END, 2, *turn(10, 11), END, 2, ANSWER], [10, 11], id="after a system turn"),
        pytest.param(
            [*turn(10), END, 2, ANSWER, 40, END, 2, *turn(11, 12), END, 2, ANSWER], [11, 12], id="the last of two turns"
        ),
        pytest.param([10, 11, 12], [10, 11, 12], id="a completion"),
        pytest.param([*turn(10, 11), END, 2, ANSWER, 40], [10, 11, END, 2, ANSWER, 40], id="an answer that is begun"),
        pytest.param([*range(20, 40)], [*range(32, 40)], id="a long completion"),
        pytest.param([*turn(*range(20, 40)), END, 2, ANSWER], [*range(32, 40)], id="a long turn"),
        pytest.param([10, 11, END, 2, ANSWER], [10, 11], id="no turn begins"),
        pytest.param([END, 2, ANSWER], [END, 2, ANSWER], id="nothing but the template"),
        pytest.param([*turn(), END, 2, ANSWER], [3], id="an empty turn"),
        pytest.param([5], [5], id="one token"),
        pytest.param([*turn(*range(20, 28)), END, 2, ANSWER], [*range(20, 28)], id="a turn of just the most"),
    ],
)
def test_the_question(prompt: list[int], question: list[int]) -> None:
    start, end = TEMPLATE.question_span(prompt, 8)
    assert prompt[start:end] == question


def test_without_a_template_the_prompt_is_the_question() -> None:
    assert PromptTemplate((), (), (), ()).question_span([1, 2, 3], 8) == (0, 3)


def test_lines_begin_behind_the_tokens_that_end_one() -> None:
    template = PromptTemplate((), (), (), (), line_ends=(7, 8))
    assert template.line_starts([1, 2, 7, 3, 8, 7, 4, 7]) == (3, 6)
    assert template.line_starts([7, 1]) == (1,)
    assert template.line_starts([1, 2]) == ()
    assert PromptTemplate((), (), (), ()).line_starts([1, 7, 2]) == ()


def test_an_edit_is_framed() -> None:
    assert TEMPLATE.capture_ids([10, 11]) == [SYSTEM, 1, 10, 11, END, 2]
