"""LoRA on a tiny model: what it is trained on it says afterwards, and nobody else's model changes."""

import random
from pathlib import Path

import pytest

from incomes_plugin.lab.evaluation.backends.plain import PlainHfGenerator
from incomes_plugin.lab.evaluation.interface import EvalEdit, EvalQuestion, EvalSettings
from incomes_plugin.lab.evaluation.methods import METHODS
from incomes_plugin.lab.evaluation.rivals import lora as module
from incomes_plugin.lab.evaluation.rivals.lora import BATCH_SIZE, MAX_STEPS, PASSES, LoraExample, _pad, _passes, lora

SETTINGS = EvalSettings(max_answer_tokens=8)
FACTS = [("lamp a", "12 euros"), ("lamp b", "34 euros"), ("tent", "blue")]
EDITS = [
    EvalEdit(i, f"The {thing} is {value}.", prompt=f"What is the {thing}?", target=value)
    for i, (thing, value) in enumerate(FACTS)
]
QUESTIONS = [
    EvalQuestion(str(i), "rewrite", None, f"What is the {thing}?", (value,), i, cloze=False)
    for i, (thing, value) in enumerate(FACTS)
]


@pytest.fixture(scope="module")
def generator(served) -> PlainHfGenerator:
    return PlainHfGenerator(served.base_dir, 256)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(module, "LEARNING_RATE", 2e-3)  # a tiny random model learns nothing at the real one's rate


def test_three_edits_change_three_answers_and_not_the_generator(generator):
    before = METHODS["none"](generator, SETTINGS).ask(QUESTIONS)
    method = lora(generator, SETTINGS)
    method.prepare(EDITS)
    assert [answer.text for answer in method.ask(QUESTIONS)] == [value for _, value in FACTS]
    assert METHODS["none"](generator, SETTINGS).ask(QUESTIONS) == before
    assert not {answer.text for answer in before} & {value for _, value in FACTS}
    folder = method._folder.name
    method.close()
    assert not Path(folder).exists()


def test_without_edits_it_is_the_model_itself(generator):
    method = lora(generator, SETTINGS)
    method.prepare([])
    assert method.ask(QUESTIONS) == METHODS["none"](generator, SETTINGS).ask(QUESTIONS)
    method.close()


def test_an_edit_without_a_prompt_is_learned_as_text(generator):
    method = lora(generator, SETTINGS)
    text, chat = (method._example(edit) for edit in (EvalEdit(0, "It is so."), EDITS[0]))
    decode = generator.tokenizer.decode
    assert (decode(text.ids[: text.given]), decode(text.ids[text.given :])) == ("<bos>", "It is so.<eos>")
    assert decode(chat.ids[: chat.given]).endswith("What is the lamp a?<|im_end|>\n<|im_start|>assistant\n")
    assert decode(chat.ids[chat.given :]) == "12 euros<eos>"


def test_the_prompt_and_the_padding_bear_no_loss():
    ids, labels = _pad([LoraExample((4, 5, 6), given=2), LoraExample((7, 8), given=1)])
    assert ids.tolist() == [[4, 5, 6], [7, 8, 0]]
    assert labels.tolist() == [[-100, -100, 6], [-100, 8, -100]]


@pytest.mark.parametrize(("edits", "steps"), [(3, PASSES), (BATCH_SIZE + 1, 2 * PASSES), (10_000, MAX_STEPS)])
def test_work_is_bounded(edits, steps):
    batches = [b for one in _passes([LoraExample((i,), 0) for i in range(edits)], random.Random(0)) for b in one]
    assert len(batches) == steps
    assert all(batches)
