"""Which edits are active, what is asked, and what is left out."""

import pytest

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.data.records import Record
from incomes_plugin.lab.evaluation.selection import select


def record(name, *edits, queries=(), flags=()):
    """`edits`: (statement, subject, target); `queries`: (type, prompt, answer)."""
    return Record.model_validate(
        {
            "id": name,
            "edits": [{"statement": s, "subject": x, "relation": None, "target_new": t} for s, x, t in edits],
            "queries": [{"type": kind, "prompt": prompt, "answers": [answer]} for kind, prompt, answer in queries],
            "flags": flags,
        }
    )


def colour(thing, target, name=None, *more):
    asked = [("rewrite", f"The {thing} is", target), *more]
    return record(name or f"{thing}-{target}", (f"The {thing} is {target}.", thing, target), queries=asked)


def pick(records, num_edits=100, limit=100, **options):
    return select(records, num_edits=num_edits, limit=limit, seed=1, **options)


def test_n_edits_are_drawn_and_a_larger_draw_begins_with_the_smaller():
    records = [colour(f"tower{i}", "blue") for i in range(30)]
    small, large = pick(records, 10), pick(records, 20)
    assert [len(small.edits), len(large.edits)] == [10, 20]
    assert large.edits[:10] == small.edits
    assert small.questions == large.questions[: len(small.questions)]
    assert select(records, num_edits=10, limit=100, seed=2).edits != small.edits


def test_limit_bounds_what_is_asked_not_what_is_active():
    chosen = pick([colour(f"tower{i}", "blue") for i in range(30)], limit=3)
    assert (len(chosen.edits), chosen.asked, len(chosen.questions)) == (30, 3, 3)


def test_a_contradicting_record_is_left_out_and_an_equal_one_shares_its_edit():
    chosen = pick([colour("tower", "blue"), colour("Tower", "red"), colour("tower", "blue", "again")], shuffle=False)
    assert [edit.text for edit in chosen.edits] == ["The tower is blue."]
    assert chosen.contradicting == 1
    assert [question.edit for question in chosen.questions] == [0, 0]


def test_of_records_without_a_relation_one_a_subject_is_active():
    again = record("again", ("Red is what the tower is.", "tower", "red"), queries=[("rewrite", "What is it?", "red")])
    chosen = pick([colour("tower", "blue"), again, colour("gate", "red")], shuffle=False)
    assert [edit.text for edit in chosen.edits] == ["The tower is blue.", "The gate is red."]
    assert chosen.contradicting == 1


def test_a_locality_question_that_another_edit_changed_is_dropped():
    asks = ("locality", "The gate is", "green")
    kept = pick([colour("tower", "blue", None, asks)])
    dropped = pick([colour("tower", "blue", None, asks), colour("gate", "red")], shuffle=False)
    assert sorted(q.type for q in kept.questions) == ["locality", "rewrite"]
    assert [q.type for q in dropped.questions] == ["rewrite", "rewrite"]
    assert dropped.overruled == 1


def test_multihop_over_facts_edited_elsewhere_is_dropped_when_others_are_active():
    hop = record(
        "hop", ("A is B.", "A", "B"), queries=[("multihop", "What is A's C?", "D")], flags=["path_edited_elsewhere"]
    )
    assert len(pick([hop]).questions) == 1
    assert [q.type for q in pick([hop, colour("gate", "red")]).questions] == ["rewrite"]


def test_a_question_is_about_the_edit_whose_target_it_asks_for():
    chain = record(
        "chain",
        ("Ann works for Acme.", "Ann", "Acme"),
        ("Acme is in Rome.", "Acme", "Rome"),
        queries=[
            ("rewrite", "Ann works for", "Acme"),
            ("rewrite", "Acme is in", "Rome"),
            ("multihop", "Where does Ann work?", "Rome"),
            ("locality", "Bob works for", "Apex"),
        ],
    )
    asked = sorted(pick([chain]).questions, key=lambda q: q.id)
    assert [q.edit for q in asked] == [0, 1, 1, None]
    assert [q.needs for q in asked] == [(0,), (1,), (0, 1), ()]
    assert [q.cloze for q in asked] == [True, True, False, True]
    assert [(e.prompt, e.target) for e in pick([chain]).edits] == [("Ann works for", "Acme"), ("Acme is in", "Rome")]


def test_a_record_with_too_many_edits_waits_for_room():
    pair = record("pair", ("A is B.", "A", "B"), ("C is D.", "C", "D"))
    assert len(pick([pair, colour("gate", "red")], 1, shuffle=False).edits) == 1
    with pytest.raises(InvalidValue, match="raise --edits"):
        pick([pair], 1)


def test_what_is_left_out_is_asked_about_and_no_active_edit_says_it():
    records = [colour(f"tower{i}", "blue") for i in range(20)]
    chosen = pick([*records, *records], left_out=4, shuffle=False)
    missed = [q for q in chosen.questions if q.type == "near_miss"]
    assert [q.prompt for q in missed] == [f"The tower{i} is" for i in range(4)]
    assert all((q.edit, q.answers, q.subtype) == (None, (), "left_out") for q in missed)
    assert (chosen.left_out, len(chosen.edits), chosen.contradicting) == (4, 16, 4)
    assert not {q.prompt.removesuffix(" is") for q in missed} & {e.text.removesuffix(" is blue.") for e in chosen.edits}


def test_at_most_a_quarter_is_left_out():
    assert pick([colour(f"tower{i}", "blue") for i in range(8)], left_out=100).left_out == 2


def test_others_fill_the_pool_and_are_not_asked_about():
    fill = [colour("tower", "red"), colour("gate", "red"), colour("wall", "grey")]
    chosen = pick([colour("tower", "blue")], num_edits=2, fill=fill)
    assert [edit.text for edit in chosen.edits] == ["The tower is blue.", "The gate is red."]
    assert (chosen.filled, chosen.asked, len(chosen.questions)) == (1, 1, 1)


def test_two_questions_of_a_type_are_asked_of_a_record():
    more = [("locality", f"The hut{i} is", "grey") for i in range(9)]
    asked = pick([colour("tower", "blue", None, *more)]).questions
    assert sorted(q.type for q in asked) == ["locality", "locality", "rewrite"]
