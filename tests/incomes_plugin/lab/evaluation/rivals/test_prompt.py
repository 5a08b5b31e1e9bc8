"""Rivals that write edits into the prompt, on a real tiny model: what stands there, how much fits, what is found."""

import random

import pytest

from incomes_plugin.lab.data.facts import FactSource
from incomes_plugin.lab.evaluation.backends.plain import PlainHfGenerator
from incomes_plugin.lab.evaluation.interface import EvalEdit, EvalQuestion, EvalSettings, messages
from incomes_plugin.lab.evaluation.rivals import retrieval
from incomes_plugin.lab.evaluation.rivals.all_in_prompt import all_in_prompt
from incomes_plugin.lab.evaluation.rivals.bm25 import Bm25
from incomes_plugin.lab.evaluation.rivals.retrieval import bm25_1, bm25_5, minilm_1

CONTEXT, ANSWER = 384, 4
SETTINGS = EvalSettings(seed=3, max_answer_tokens=ANSWER)
EDITS = [EvalEdit(i, f"The price of lamp {name} is {i}0 euros.") for i, name in enumerate("abcdefghijklmnopqrst")]


@pytest.fixture(scope="module")
def generator(served) -> PlainHfGenerator:
    return PlainHfGenerator(served.base_dir, CONTEXT)


def question(prompt: str) -> EvalQuestion:
    return EvalQuestion("q", "rewrite", None, prompt, ("x",), 0, cloze=False)


def prompts(method, generator, monkeypatch, asked) -> list[str]:
    """The texts a method sends to the model, by way of the real one."""
    sent = []
    real = generator.generate

    def generate(ids, pool, max_tokens, done):
        sent.extend(generator.tokenizer.decode(row) for row in ids)
        return real(ids, pool, max_tokens, done)

    monkeypatch.setattr(generator, "generate", generate)
    method.ask(asked)
    return sent


def fitted(method, generator, monkeypatch, asked) -> list[EvalEdit]:
    """Edits in the prompt of one question."""
    with monkeypatch.context() as patch:
        (text,) = prompts(method, generator, patch, [asked])
    return [edit for edit in EDITS if edit.text in text]


def test_all_edits_fill_the_context_and_no_more(generator, monkeypatch):
    method = all_in_prompt(generator, SETTINGS)
    method.prepare(EDITS)
    asked = question("What is the price of lamp c?")
    count = len(fitted(method, generator, monkeypatch, asked))
    (answer,) = method.ask([asked])
    assert 0 < count < len(EDITS)
    assert answer.prompt_tokens <= CONTEXT - ANSWER
    order = random.Random(SETTINGS.seed).sample(EDITS, len(EDITS))
    assert answer.prompt_tokens == len(generator.chat_ids(messages(asked, order[:count])))
    assert len(generator.chat_ids(messages(asked, order[: count + 1]))) > CONTEXT - ANSWER
    assert answer.applied == ()


def test_a_few_edits_fit_all_and_a_long_question_leaves_room_for_fewer(generator, monkeypatch):
    method = all_in_prompt(generator, SETTINGS)
    method.prepare(EDITS[:3])
    counts = [
        len(fitted(method, generator, monkeypatch, question(asked)))
        for asked in ("What?", "What? " * 35, "What? " * 60)
    ]
    assert counts[0] == 3
    assert 0 < counts[1] < 3
    assert counts[2] == 0


def test_order_is_random_by_seed(generator):
    orders = []
    for seed in (1, 1, 2):
        method = all_in_prompt(generator, EvalSettings(seed, ANSWER))
        method.prepare(EDITS[:5])
        orders.append(method._order)
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != EDITS[:5]
    assert sorted(orders[2], key=lambda edit: edit.index) == EDITS[:5]


def test_bm25_reads_the_found_edit_and_names_it(generator, monkeypatch):
    method = bm25_1(generator, SETTINGS)
    method.prepare(EDITS)
    (text,) = prompts(method, generator, monkeypatch, [question("What is the price of lamp h?")])
    assert "lamp h is 70 euros" in text
    assert text.count("euros") == 1
    (answer,) = method.ask([question("What is the price of lamp h?")])
    assert answer.applied == (7,)


def test_of_five_those_that_fit_stand_oldest_first(generator, monkeypatch):
    method = bm25_5(generator, SETTINGS)
    method.prepare(EDITS)
    (text,) = prompts(method, generator, monkeypatch, [question("What is the price of lamp h?")])
    found = [edit for edit in EDITS if edit.text in text]
    assert len(found) == 5
    assert [edit.index for edit in found] == sorted(found_at(text))
    assert found_at(text) == sorted(found_at(text))


def found_at(text: str) -> list[int]:
    """Indices of edits in the order in which they stand in `text`."""
    return [edit.index for edit in sorted(EDITS, key=lambda e: text.find(e.text)) if edit.text in text]


def test_nothing_in_common_finds_nothing(generator):
    method = bm25_1(generator, SETTINGS)
    method.prepare(EDITS)
    (answer,) = method.ask([question("Hello!")])
    assert answer.applied == ()


@pytest.mark.parametrize("factory", [bm25_5, minilm_1])
def test_without_edits_it_is_the_model_itself(generator, factory):
    method = factory(generator, SETTINGS)
    method.prepare([])
    asked = question("What is the price of lamp c?")
    plain = generator.generate([generator.chat_ids(messages(asked))], None, ANSWER)
    assert method.ask([asked]) == plain


def test_the_dense_index_is_asked_for_what_the_user_says(generator, monkeypatch):
    class Index:
        def __init__(self, texts):
            self.texts = list(texts)

        def best(self, query, count):
            assert query == "What is the price of lamp c?"
            return [2][:count]

    monkeypatch.setattr(retrieval, "MiniLm", Index)
    method = minilm_1(generator, SETTINGS)
    method.prepare(EDITS)
    (answer,) = method.ask([question("What is the price of lamp c?")])
    assert answer.applied == (2,)


def test_search_among_a_thousand_invented_facts():
    """BM25 found 94 to 97 % when this was written; by chance it would be 0.1 %."""
    facts = FactSource(5, held_out=True).distinct(1000)
    lexical = Bm25([fact.statement for fact in facts])
    assert sum(lexical.best(fact.question, 1) == [i] for i, fact in enumerate(facts[:200])) / 200 > 0.9
