"""Other forms of edits keep what they say: the answer stands in the statement and is that of every question."""

from __future__ import annotations

import random

from incomes_plugin.lab.data.examples import Example, Question, invented
from incomes_plugin.lab.data.restating import restated


def test_an_edit_in_another_form_still_answers_its_questions():
    before = invented(600, seed=1, held_out=False)
    after = restated(before, random.Random(2))
    assert len(after) == len(before)
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert 0.1 < len(changed) / len(before) < 0.4
    for old, new in zip(before, after, strict=True):
        (answer,) = {question.answer for question in new.questions}
        assert answer.casefold() in new.statement.casefold()
        assert old.questions[0].answer in answer
        assert new.subject == old.subject
        assert new.subject.casefold() in new.questions[0].prompt.casefold()


def test_some_become_a_question_with_its_answer_and_some_of_these_have_asides():
    before = invented(600, seed=1, held_out=False)
    asked = [
        (old, new) for old, new in zip(before, restated(before, random.Random(2)), strict=True) if "?" in new.statement
    ]
    assert asked
    for _, new in asked:
        assert new.questions[0].prompt in new.statement
        assert new.questions[0].prompt.endswith("?")
    with_asides = [new for old, new in asked if new.questions[0].prompt != old.questions[0].prompt]
    assert 0.2 < len(with_asides) / len(asked) < 0.8


def test_an_edit_without_a_question_or_with_several_answers_stays():
    without = Example("The lake is deep.", (), (), "own")
    several = Example("It has 3 doors.", (Question("How many?", "3"), Question("What?", "doors")), (), "own")
    named_twice = Example("Rome is Rome.", (Question("What is Rome?", "Rome"),), (), "own")
    for seed in range(50):
        kept = restated([without, several, named_twice], random.Random(seed))
        assert kept[:2] == [without, several]
        assert kept[2].questions[0].answer == "Rome"
