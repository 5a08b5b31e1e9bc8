"""Built-in data: nested in N, answerable from the edit alone, near misses that no edit answers."""

from incomes_plugin.lab.data.unrelated import PASSAGES, UNRELATED_PROMPTS
from incomes_plugin.lab.evaluation.invented import invented, invented_chain, invented_conflict
from incomes_plugin.lab.evaluation.selection import select


def queries(records, kind):
    return [query for record in records for query in record.queries if query.type == kind]


def test_more_edits_ask_the_same_questions():
    small, large = invented(5, 3, 5), invented(40, 3, 5)
    for kind in ("rewrite", "rephrase"):
        assert queries(small, kind) == queries(large[:5], kind)
    assert invented(5, 4, 5) != small


def test_every_edit_says_the_answer_of_its_questions():
    for record in invented(50, 1, 0):
        for query in record.queries:
            assert query.answers[0] in record.edits[0].statement
            assert record.edits[0].subject.removeprefix("the ").lower() in query.prompt.lower()


def test_near_misses_come_close_to_an_edit_and_are_said_by_none():
    records = invented(200, 1, 30)
    missed = queries(records, "near_miss")
    assert len(missed) == 60
    assert not {query.prompt for query in missed} & {query.prompt for query in queries(records, "rewrite")}
    for record in records[:30]:
        other = next(query for query in record.queries if query.subtype == "other_relation")
        assert record.edits[0].subject.lower() in other.prompt.lower()


def test_of_two_edits_the_later_gives_the_answer():
    chosen = select(invented_conflict(20, 5, 20), num_edits=20, limit=20, seed=0, shuffle=False)
    assert len(chosen.edits) == 20
    for question in chosen.questions:
        assert question.answers[0] in chosen.edits[question.edit].text
        assert question.edit % 2 == 1
        assert question.overwritten
        assert question.old_answers[0] in chosen.edits[question.edit - 1].text


def test_unrelated_prompts_are_many_and_distinct():
    assert len(set(UNRELATED_PROMPTS)) == len(UNRELATED_PROMPTS) >= 200
    assert len(set(PASSAGES)) == len(PASSAGES)


def test_a_chain_needs_both_of_its_edits():
    chosen = select(invented_chain(20, 5, 20), num_edits=20, limit=20, seed=0, shuffle=False)
    assert len(chosen.edits) == 20
    for question in (q for q in chosen.questions if q.type == "multihop"):
        first, second = (chosen.edits[i] for i in question.needs)
        assert question.edit == second.index
        assert question.answers[0] in second.text
        assert first.target is not None
        assert first.target in second.text
        assert question.answers[0] not in first.text
