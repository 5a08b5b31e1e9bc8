"""Questions the other way round, and one step further."""

from __future__ import annotations

import random

from incomes_plugin.lab.adapt.plan import training_plan
from incomes_plugin.lab.data.examples import Example, Question
from incomes_plugin.lab.data.hops import further, inverse, kin, world


def example(statement: str, prompt: str, answer: str, subject: str) -> Example:
    return Example(statement, (Question(prompt, answer),), (), "published", subject)


def test_kin_are_asked_for_from_the_other_end():
    for one in kin(200, seed=1):
        back = inverse(one, random.Random(0))
        assert back is not None
        assert back.answer == one.subject
        assert one.questions[0].answer in back.prompt
        assert one.subject not in back.prompt


def test_a_neighbour_of_a_fact_about_kin_is_none_of_its_questions():
    for one in kin(200, seed=2):
        asked = {q.prompt for q in one.questions}
        assert asked.isdisjoint(one.neighbours)
        assert not any(one.questions[0].answer in prompt for prompt in one.neighbours)


def test_published_facts_are_turned_round_where_they_are_about_kin():
    father = example("Gether's father is Harmonius.", "Who is Gether's father?", "Harmonius", "Gether")
    back = inverse(father, random.Random(0))
    assert back is not None
    assert (back.answer, "Harmonius" in back.prompt) == ("Gether", True)
    for prompt, answer in (
        ("The mother tongue of Ann is", "French"), ("What is the parent company of Marshalls?", "Wesfarmers"),
        ("Who directed My Sister Sam?", "Bo"), ("Who is Ann's father?", "male"),
    ):  # fmt: skip
        subject = "My Sister Sam" if "Sam" in prompt else "Ann"
        assert inverse(example("It is so.", prompt, answer, subject), random.Random(0)) is None, prompt


def test_one_step_further_names_the_answer_and_what_follows():
    edit = example("Ann is from Yemen.", "What is the country of Ann?", "Yemen", "Ann")
    hop = further(edit, random.Random(0))
    assert hop is not None
    assert "country of Ann" in hop.prompt
    assert hop.answer.startswith("Yemen. The ")
    assert hop.answer.endswith(hop.known)
    assert hop.known in world()["Yemen"].values()
    assert further(example("Ann likes tea.", "What is the drink of Ann?", "tea", "Ann"), random.Random(0)) is None
    assert further(example("Ann is from Yemen.", "Where is Ann from?", "Yemen", "Ann"), random.Random(0)) is None


def test_near_misses_of_relatives_ask_for_nobody_that_the_edit_names():
    """A brother is a sibling, and a son a child: no attribute by name is a near miss of an edit about one."""
    plan = training_plan(None, scale=0.2, seed=3)
    kinds = {row: edit for row, edit in enumerate(plan.edits) if edit.kind == "kin"}
    near = [(kinds[r.near], r.messages[-1]["content"]) for r in plan.refused if r.near in kinds]
    assert len(near) > len(kinds) > 20
    about_the_subject = [(edit, prompt) for edit, prompt in near if edit.subject in prompt]
    assert about_the_subject
    assert all(any(prompt.endswith(wrong) for wrong in edit.neighbours) for edit, prompt in about_the_subject)
