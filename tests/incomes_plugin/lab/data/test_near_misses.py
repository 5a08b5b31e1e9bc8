"""Near misses name the edit's subject or its relation, and never both."""

from __future__ import annotations

import random

from incomes_plugin.lab.data.examples import Example, Question, invented
from incomes_plugin.lab.data.near_misses import NearMisses, by_name


def record(subject: str, relation: str, answer: str) -> Example:
    questions = (Question(f"What is the {relation} of {subject}?", answer), Question(f"{subject}'s {relation}", answer))
    return Example(f"The {relation} of {subject} is {answer}.", questions, (), "published", subject)


CROWD = [
    record("Ann Brown", "birthplace", "Rome"),
    record("Castle Rock", "county", "Kent"),
    record("Blue Moon", "composer", "Bach"),
]


def test_each_differs_from_the_edit_in_subject_or_in_relation():
    near = NearMisses(CROWD, random.Random(0))
    kinds = set()
    for _ in range(200):
        for prompt in near.of(CROWD[0], 2):
            same_subject, same_relation = "Ann Brown" in prompt, "birthplace" in prompt
            assert not (same_subject and same_relation), prompt
            assert same_subject or same_relation, prompt
            kinds.add((same_subject, same_relation))
    assert kinds == {(True, False), (False, True)}


def test_an_attribute_that_the_edit_names_is_not_asked_for():
    example = record("Ann Brown", "date of birth", "1 May")
    near = NearMisses([example], random.Random(1))
    found = [prompt for _ in range(300) for prompt in near.of(example, 3)]
    assert found
    assert not any("birth" in prompt for prompt in found)


def test_neighbours_that_a_set_gives_come_first():
    for example in invented(20, seed=3, held_out=False):
        found = NearMisses([example], random.Random(2)).of(example, 1)
        assert found[0] in example.neighbours


def test_what_an_edit_says_is_asked_for_by_name_in_the_same_forms():
    found = {by_name(CROWD[1], random.Random(seed)) for seed in range(40)}
    assert {q.answer for q in found if q} == {"Kent"}
    assert {q.prompt for q in found if q} == {
        "The county of Castle Rock is", "Castle Rock county", "What is the county of Castle Rock?",
        "Castle Rock: what is its county?", "Tell me the county of Castle Rock.",
    }  # fmt: skip
    nameless = Example("x", (Question("Where was Ann born?", "Rome"),), (), "published", "Ann")
    assert by_name(nameless, random.Random(0)) is None


def test_a_similar_subject_differs_in_one_word_or_digit():
    pump = record("pump DT-440", "warranty", "2 years")
    near = NearMisses([*CROWD, pump], random.Random(4))
    for example in (CROWD[0], pump):
        found = {near.similar(example) for _ in range(100)} - {None}
        assert len(found) > 3
        assert not any(example.subject in prompt for prompt in found)
        assert any(example.subject.split()[0] in prompt for prompt in found)
        assert any(example.subject.split()[1] in prompt for prompt in found)
    assert {len(prompt) for prompt in found if "pump " in prompt} <= {len(q.prompt) for q in pump.questions}
