"""Methods on the reference backend: what they see, what is compared, and that edits reach the answers."""

import pytest

from incomes_plugin.lab.evaluation.harness import Base, evaluate
from incomes_plugin.lab.evaluation.interface import EvalEdit, EvalQuestion, EvalSettings, Turn, messages
from incomes_plugin.lab.evaluation.methods import METHODS, Gists, NoEdits, Oracle
from incomes_plugin.lab.evaluation.metrics import summarise

SETTINGS = EvalSettings(0, 2)
EDITS = (EvalEdit(0, "The gate is red."), EvalEdit(1, "The tower is blue."), EvalEdit(2, "x" * 2000))
QUESTIONS = (
    EvalQuestion("a", "rewrite", None, "Which shade has the tower?", ("blue",), 1, cloze=False, needs=(1,)),
    EvalQuestion("b", "locality", None, "The sea is", ("wide",), None, cloze=True),
    EvalQuestion("c", "unrelated", "list", "Hello", (), None, cloze=False),
)


def ask(method, generator):
    made = METHODS[method](generator, SETTINGS)
    made.prepare(EDITS)
    return made.ask(QUESTIONS)


def test_context_is_no_longer_than_the_model_has_positions(generator):
    assert generator.max_context_tokens == 1024


def test_edits_in_the_pool_change_answers_and_cost_no_prompt(generator):
    none, ours = ask("none", generator), ask("ours", generator)
    assert [a.tokens for a in none] != [a.tokens for a in ours]
    assert [a.prompt_tokens for a in none] == [a.prompt_tokens for a in ours]
    assert {place for a in ours for place in a.applied} <= {0, 1}
    assert any(a.applied for a in ours)


def test_the_oracle_reads_the_right_edit_and_nothing_for_a_question_about_none(generator):
    none, oracle = ask("none", generator), ask("oracle", generator)
    asked = "Context: The tower is blue.\n\nQuestion: Which shade has the tower?\nAnswer briefly from the context."
    expected = generator.chat_ids([Turn("user", asked)])
    assert oracle[0].prompt_tokens == len(expected) > none[0].prompt_tokens
    assert oracle[1:] == none[1:]


def test_an_edit_that_is_too_long_is_refused_and_counted(generator):
    pool = generator.add(EDITS)
    assert (pool.num_edits, pool.refused) == (2, (2,))
    assert pool.num_bytes > 0


def test_history_and_context_come_before_the_question():
    question = EvalQuestion("q", "multi_turn", None, "And?", (), None, cloze=False, history=(Turn("user", "Hi"),))
    turns = messages(question, EDITS[:2])
    assert [t.content for t in turns][:1] == ["Hi"]
    assert turns[1].content.startswith("Context: The gate is red.\nThe tower is blue.\n\nQuestion: And?")
    assert messages(question)[1:] == [Turn("user", "And?")]


@pytest.mark.parametrize("method", ["none", "ours"])
def test_answers_to_what_no_edit_answers_are_compared_with_the_base(generator, method):
    stages = []
    base = Base(generator, SETTINGS)
    found = evaluate(method, base, EDITS, QUESTIONS, lambda *stage: stages.append(stage))
    metrics = summarise(found.outcomes)
    assert {"reliability", "locality_unchanged", "unrelated_unchanged", "unrelated_list_unchanged"} <= set(metrics)
    assert [o.without_edits for o in found.outcomes] == [None, *ask("none", generator)[1:]]
    if method == "none":
        assert metrics["unrelated_unchanged"].value == metrics["locality_unchanged"].value == 1.0
        assert found.bytes_per_edit is None
    else:
        assert (found.refused, found.bytes_per_edit is not None) == (1, True)
    assert ("asking", 3, 3) in stages


def test_the_base_is_asked_once_for_all_methods(generator, monkeypatch):
    base = Base(generator, SETTINGS)
    first = base.answers(QUESTIONS, lambda *_: None)
    real = generator.generate
    monkeypatch.setattr(generator, "generate", lambda prompts, *rest: real(prompts, *rest) if prompts else [])
    monkeypatch.setattr(generator, "_model", None)
    assert base.answers(QUESTIONS[::-1], lambda *_: None) == first[::-1]


def test_every_method_has_the_name_it_is_registered_under():
    made = {cls.name: cls for cls in (NoEdits, Gists, Oracle)}
    assert all(METHODS[name] is cls for name, cls in made.items())
