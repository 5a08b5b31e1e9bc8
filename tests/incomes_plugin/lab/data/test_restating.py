"""Other forms of edits keep what they say: the answer stands in the statement and is that of every question."""

from __future__ import annotations

import random

from incomes_plugin.lab.adapt.plan import training_plan
from incomes_plugin.lab.data.examples import Example, Question, invented
from incomes_plugin.lab.data.restating import restated


def test_an_edit_in_another_form_still_answers_its_questions():
    before = {example.subject: example for example in invented(600, seed=1, held_out=False)}
    after = restated(list(before.values()), random.Random(2))
    assert len(after) > 500
    for new in after:
        old = before[new.subject]
        (answer,) = {question.answer for question in new.questions}
        assert answer.casefold() in new.statement.casefold()
        assert old.questions[0].answer in answer
        assert new != old
        assert new.subject.casefold() in new.questions[0].prompt.casefold()


def test_many_are_a_question_with_its_answer_and_some_of_these_have_asides_or_two_parts():
    before = {example.subject: example for example in invented(600, seed=1, held_out=False)}
    asked = [new for new in restated(list(before.values()), random.Random(2)) if "?" in new.statement]
    assert 0.2 < len(asked) / len(before) < 0.8
    for new in asked:
        assert new.questions[0].prompt in new.statement
        assert new.questions[0].prompt.endswith("?")
    aside = [new for new in asked if new.questions[0].prompt != before[new.subject].questions[0].prompt]
    parts = [new for new in asked if new.questions[0].answer != before[new.subject].questions[0].answer]
    assert 0.3 < len(aside) / len(asked) < 0.7
    assert 0.1 < len(parts) / len(asked) < 0.5


def test_an_edit_that_has_no_other_form_is_left_out():
    without = Example("The lake is deep.", (), (), "own")
    several = Example("It has 3 doors.", (Question("How many?", "3"), Question("What?", "doors")), (), "own")
    named_twice = Example("Rome is Rome.", (Question("The town of Rome is", "Rome"),), (), "own")
    assert restated([without, several, named_twice], random.Random(1)) == []


def test_a_plan_has_them_at_its_end_for_reading_alone():
    plan = training_plan(None, scale=0.05, seed=3)
    first = next(i for i, asked in enumerate(plan.asked) if asked.reading_only)
    assert all(asked.reading_only and asked.rare and asked.answer for asked in plan.asked[first:])
    edits = [asked.edits[0] for asked in plan.asked[first:]]
    assert edits == list(range(len(plan.edits) - len(edits), len(plan.edits)))
    subjects = {example.subject for example in plan.edits[: edits[0]]}
    assert not subjects & {plan.edits[edit].subject for edit in edits}
