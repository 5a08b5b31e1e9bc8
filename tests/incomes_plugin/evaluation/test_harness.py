"""Methods on the reference backend: what they see, what is compared, and that edits reach the answers."""

import pytest

from incomes_plugin.evaluation import harness
from incomes_plugin.evaluation.backends.hf import HfGenerator
from incomes_plugin.evaluation.interface import EditText, EvalSettings, Question, Turn, messages
from incomes_plugin.evaluation.methods import METHODS, POOLED, Gists, NoEdits, Oracle
from incomes_plugin.evaluation.metrics import summarise
from incomes_plugin.evaluation.selection import Selection

SETTINGS = EvalSettings(0, 4)
EDITS = (EditText(0, "The gate is red."), EditText(1, "The tower is blue."), EditText(2, "x" * 400))
QUESTIONS = (
    Question("a", "rewrite", None, "The tower is", ("blue",), 1, cloze=True, needs=(1,)),
    Question("b", "locality", None, "The sea is", ("wide",), None, cloze=True),
)


@pytest.fixture(scope="module")
def generator(tiny_dir):
    return HfGenerator(tiny_dir, 4096)


@pytest.fixture
def few_prompts(monkeypatch):
    monkeypatch.setattr(harness, "UNRELATED_PROMPTS", ("Hello", "Why?"))


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
    assert all(len(a.tokens) <= SETTINGS.max_answer_tokens for a in ours)


def test_the_oracle_reads_the_right_edit_and_nothing_for_a_question_about_none(generator):
    none, oracle = ask("none", generator), ask("oracle", generator)
    expected = generator.chat_ids([Turn("system", "The tower is blue."), Turn("user", "The tower is")])
    assert oracle[0].prompt_tokens == len(expected) > none[0].prompt_tokens
    assert oracle[1] == none[1]


def test_an_edit_that_is_too_long_is_refused_and_counted(generator):
    pool = generator.add(EDITS)
    assert (pool.num_edits, pool.refused) == (2, (2,))
    assert pool.num_bytes > 0


def test_history_and_context_come_before_the_question():
    question = Question("q", "multi_turn", None, "And?", (), None, cloze=False, history=(Turn("user", "Hi"),))
    turns = messages(question, EDITS[:2])
    assert [t.role for t in turns] == ["system", "user", "user"]
    assert turns[0].content == "The gate is red. The tower is blue."


@pytest.mark.usefixtures("few_prompts")
@pytest.mark.parametrize("method", ["none", "ours"])
def test_evaluate_compares_with_the_model_without_edits(generator, method):
    selection = Selection(EDITS, QUESTIONS, records=2, asked=2, contradicting=0, overruled=0)
    stages = []
    found = harness.evaluate(method, generator, selection, SETTINGS, lambda *args: stages.append(args))
    metrics = summarise(found.outcomes, strict=False)
    assert {"reliability", "locality", "locality_unchanged", "unrelated_unchanged"} <= set(metrics)
    assert metrics["unrelated_unchanged"].n == 2
    if method == "none":
        assert metrics["unrelated_unchanged"].value == metrics["locality_unchanged"].value == 1.0
        assert found.bytes_per_edit is None
    else:
        plain = {o.question.id: o.without_edits for o in found.outcomes if o.without_edits}
        assert set(plain) == {"b", "unrelated/0", "unrelated/1"}
        assert plain["b"] == ask("none", generator)[1]
        assert (found.refused, found.bytes_per_edit is not None) == (1, True)
    assert ("asking", 4, 4) in stages


def test_every_method_has_the_name_it_is_registered_under(generator):
    made = {cls.name: cls for cls in (NoEdits, Gists, Oracle)}
    assert set(made) <= set(METHODS)
    assert set(POOLED) <= set(METHODS)
    assert all(METHODS[name] is cls for name, cls in made.items())
