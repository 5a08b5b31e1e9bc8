"""The texts of a run: answers to two questions at once, and what of them is given instead of learned."""

from __future__ import annotations

from transformers import AutoTokenizer

from incomes_plugin.lab.adapt.plan import training_plan
from incomes_plugin.lab.adapt.tokens import PlanTokens
from incomes_plugin.model.template import template_of
from tests.tiny_model import write_tiny_model


def test_some_answers_to_two_questions_begin_with_the_second_which_is_given():
    plan = training_plan(None, scale=0.05, seed=3)
    two = [asked for asked in plan.asked if len(asked.edits) == 2]
    turned = [asked for asked in two if asked.given]
    assert 0.2 < len(turned) / len(two) < 0.5
    for asked in two:
        first, second = (plan.edits[row].questions[0].answer for row in asked.edits)
        assert asked.answer == (f"{second} and {first}" if asked.given else f"{first} and {second}")
        assert asked.given in ("", second)
    assert not any(asked.given for asked in plan.asked if len(asked.edits) != 2)


def test_given_tokens_are_the_first_of_the_answer(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(write_tiny_model(tmp_path / "model"))
    plan = training_plan(None, scale=0.02, seed=3)
    tokens = PlanTokens(tokenizer, template_of(tokenizer), plan)
    turned = [row for row, asked in enumerate(plan.asked) if asked.given]
    assert turned
    for row in turned:
        given = tokens.given(row)
        assert 0 < given < len(tokens.answers[row]) - 1
        assert tokenizer.decode(tokens.answers[row][:given]) == plan.asked[row].given
    assert tokens.given(0) == 0
