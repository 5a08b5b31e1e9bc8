"""Facts of which one leads to the next: each begins where the one before it ends; the question needs all of them."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from incomes_plugin.lab.adapt.plan import training_plan
from incomes_plugin.lab.data.hops import world
from incomes_plugin.lab.data.linked import linked_facts

FORMS = {
    "{s} is a citizen of {o}.": ("Ada Lovelace", "Chile"), "The author of {s} is {o}.": ("Emma", "Jane Austen"),
    "{s} plays the position of {o}.": ("Jo Root", "goalkeeper"), "{s} speaks the language of {o}.": ("Ian", "Thai"),
    "{s} is affiliated with the religion of {o}.": ("Ed", "Sikhism"), "{s} is employed by {o}.": ("Al", "Fiat"),
    "The headquarters of {s} is located in the city of {o}.": ("Nokia", "Turin"),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the published set in small: some names of each kind."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "edits").mkdir()
    with lzma.open(folder / "edits" / "pokemqa.train.jsonl.xz", "wt", encoding="utf-8") as lines:
        for form, (subject, answer) in FORMS.items():
            for i in "ABCDEFGHIJ":
                edit = {"subject": subject + i, "target_new": answer + i}
                edit["statement"] = form.format(s=edit["subject"], o=edit["target_new"])
                lines.write(json.dumps({"edits": [edit], "queries": []}) + "\n")
    return folder


def test_each_fact_begins_where_the_one_before_it_ends(data):
    found = linked_facts(data, 200, seed=3)
    assert {len(linked.facts) for linked in found} == {2, 3, 4}
    for linked in found:
        facts = linked.facts
        assert [fact.subject for fact in facts[1:]] == [fact.answer for fact in facts[:-1]]
        assert len({facts[0].subject, *(fact.answer for fact in facts)}) == len(facts) + 1
        assert facts[0].subject in linked.prompt
        assert not any(fact.answer in linked.prompt for fact in facts)
        for fact in facts:
            assert fact.subject.casefold() in fact.statement.casefold()
            assert fact.answer.casefold() in fact.statement.casefold()
    assert found == linked_facts(data, 200, seed=3)


def test_an_aside_does_not_follow(data):
    says_the_same = []
    for linked in linked_facts(data, 200, seed=3):
        assert len(linked.asides) == len(linked.facts) - 1
        for aside, before, after in zip(linked.asides, linked.facts, linked.facts[1:], strict=False):
            assert aside.answer != after.answer
            assert aside.answer == before.answer or aside.subject == after.subject
            says_the_same.append(aside.answer == before.answer)
    assert 0.5 < sum(says_the_same) / len(says_the_same) < 0.95


def test_what_is_said_of_a_subject_is_said_once(data):
    said = {}
    for linked in linked_facts(data, 200, seed=3):
        for fact in (*linked.facts, *linked.asides):
            relation = fact.question.replace(fact.subject, "")
            assert said.setdefault((fact.subject, relation), fact) == fact


def test_a_plan_names_the_edits_of_each_question(data):
    plan = training_plan(data, scale=0.05, seed=3)
    found = linked_facts(data, 100, seed=3, known=35)
    for linked, one in zip(found, plan.asked[-len(found) :], strict=True):
        assert one.messages[-1]["content"].endswith(linked.prompt)
        assert (one.answer, one.known) == (linked.answer, linked.known)
        assert [plan.edits[row].statement for row in one.owners] == [fact.statement for fact in linked.facts]
        assert [plan.edits[row].statement for row in one.asides] == [fact.statement for fact in linked.asides]
    new = {fact for linked in found for fact in (*linked.facts, *linked.asides)}
    assert [example.statement for example in plan.edits[-len(new) :]] == list(
        dict.fromkeys(fact.statement for linked in found for fact in (*linked.facts, *linked.asides))
    )


def test_what_the_base_knows_is_said_of_a_name_and_by_no_fact(data):
    found = linked_facts(data, 100, seed=3, known=100)
    known = [linked for linked in found if linked.known]
    assert {len(linked.facts) for linked in known} == {1, 2, 3}
    facts = {fact for linked in found for fact in (*linked.facts, *linked.asides)}
    for linked in known:
        last = linked.facts[-1].answer
        assert linked.known == world()[last][linked.attribute]
        assert linked.answer == f"{last}. The {linked.attribute} of {last} is {linked.known}"
        assert not any(fact.subject == last and linked.attribute in fact.statement for fact in facts)
        assert last not in linked.prompt
    assert all(linked.answer == linked.facts[-1].answer for linked in found if not linked.known)


@pytest.mark.parametrize("nowhere", [None, Path("/nonexistent")])
def test_without_the_set_that_names_come_from_there_are_none(nowhere):
    assert linked_facts(nowhere, 5, seed=1) == []


def test_a_set_with_few_names_gives_as_many_as_it_can(tmp_path):
    (tmp_path / "edits").mkdir()
    with lzma.open(tmp_path / "edits" / "pokemqa.train.jsonl.xz", "wt", encoding="utf-8") as lines:
        edit = {"subject": "Ian", "target_new": "Thai", "statement": "Ian speaks the language of Thai."}
        lines.write(json.dumps({"edits": [edit], "queries": []}) + "\n")
    assert len(linked_facts(tmp_path, 30, seed=1)) <= 30
