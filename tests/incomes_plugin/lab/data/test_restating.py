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
    prompts = [(new.questions[0].prompt, before[new.subject].questions[0].prompt) for new in asked]
    assert 0.2 < sum(new == new.lower() for new, _ in prompts) / len(prompts) < 0.4
    aside = [new for new, old in prompts if new.lower() != old.lower()]
    parts = [new for new in asked if new.questions[0].answer != before[new.subject].questions[0].answer]
    assert 0.3 < len(aside) / len(asked) < 0.7
    assert 0.1 < len(parts) / len(asked) < 0.5


def test_some_begin_with_the_answer():
    question = Question("Who directed The Long Night?", "ann Zed")
    before = Example("The Long Night was directed by ann Zed.", (question,), (), "own", "The Long Night")
    found = {restated([before], random.Random(seed))[0] for seed in range(60)}
    turned = {new for new in found if new.statement.startswith("Ann Zed")}
    assert {new.statement for new in turned} == {"Ann Zed directed The Long Night.", "Ann Zed directed the long night."}
    assert {new.questions[0].prompt for new in turned} == {question.prompt, question.prompt.lower()}
    assert {new.questions[0].answer for new in turned} == {"ann Zed"}


def test_an_edit_that_has_no_other_form_is_left_out():
    without = Example("The lake is deep.", (), (), "own")
    several = Example("It has 3 doors.", (Question("How many?", "3"), Question("What?", "doors")), (), "own")
    named_twice = Example("Rome is Rome.", (Question("The town of Rome is", "Rome"),), (), "own")
    assert restated([without, several, named_twice], random.Random(1)) == []


def test_a_plan_asks_for_each_of_them_in_its_own_words_and_in_others():
    plan, without = (training_plan(None, scale=0.05, seed=seed) for seed in (3, 3))
    assert plan == without
    last = [i for i, example in enumerate(plan.edits) if example.kind == "invented" and "?" in example.statement]
    own, other = ([a for a in plan.asked if a.edits == (last[-1],) and bool(a.answer) is has] for has in (True, False))
    assert own[0].rare
    assert own[0].messages[-1]["content"].endswith(plan.edits[last[-1]].questions[0].prompt)
    assert other[0].messages[-1]["content"].endswith(plan.edits[last[-1]].questions[1].prompt)
    assert own[0].unverified, "verification does not learn from them"
    assert other[0].unverified
    assert not any(refused.near == last[-1] for refused in plan.refused)
