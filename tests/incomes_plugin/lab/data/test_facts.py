"""Invented facts: held-out words stay out, facts are reproducible and distinct, an edit says its answer."""

import pytest

from incomes_plugin.lab.data.facts import FactSource
from incomes_plugin.lab.data.names import is_held_out_name


def test_held_out_people_share_no_word_with_training():
    def words(held_out: bool) -> set[str]:
        facts = [f for f in FactSource(5, held_out=held_out).distinct(3000) if f.relation.kind == "person"]
        return {word for fact in facts for word in fact.subject.split()}

    train, test = words(False), words(True)
    assert train
    assert test
    assert not train & test
    assert all(map(is_held_out_name, test))


def test_the_same_seed_gives_the_same_facts_and_they_are_distinct():
    one, two = (FactSource(9, held_out=False).distinct(50) for _ in range(2))
    assert one == two
    assert len({(fact.subject, fact.relation.name) for fact in one}) == 50


@pytest.mark.parametrize("held_out", [False, True])
def test_an_edit_says_subject_and_answer(held_out):
    for fact in FactSource(11, held_out=held_out).distinct(300):
        said = fact.statement.lower()
        assert fact.answer.lower() in said
        assert fact.subject.lower() in said
        assert fact.answer != fact.subject


def test_a_similar_subject_differs_in_one_word():
    source = FactSource(3, held_out=True)
    for fact in source.distinct(100):
        other = source.similar_subject(fact)
        assert other != fact.subject
        if len(words := fact.subject.split()) > 1:
            assert sum(a != b for a, b in zip(words, other.split(), strict=True)) == 1
