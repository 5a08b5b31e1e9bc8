"""LoRA on a tiny model: what it is trained on it says afterwards, and nobody else's model changes."""

import random

import pytest

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.evaluation.backends.chat import ChatModel
from incomes_plugin.evaluation.backends.hf import HfGenerator
from incomes_plugin.evaluation.interface import EditText, EvalSettings, Question
from incomes_plugin.evaluation.methods import METHODS
from incomes_plugin.evaluation.rivals.lora import BATCH_SIZE, MAX_STEPS, PASSES, Example, _batches, _pad, lora
from tests.tiny_model import TinyModel, write_tiny_model

SETTINGS = EvalSettings(max_answer_tokens=8)
FACTS = [("lamp a", "12 euros"), ("lamp b", "34 euros"), ("tent", "blue")]
EDITS = [
    EditText(i, f"The {thing} is {value}.", prompt=f"What is the {thing}?", target=value)
    for i, (thing, value) in enumerate(FACTS)
]
QUESTIONS = [
    Question(str(i), "rewrite", None, f"What is the {thing}?", (value,), i, cloze=False)
    for i, (thing, value) in enumerate(FACTS)
]


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> HfGenerator:
    return HfGenerator(write_tiny_model(tmp_path_factory.mktemp("model"), TinyModel()), 256)


def test_three_edits_change_three_answers_and_not_the_generator(generator):
    before = METHODS["none"](generator, SETTINGS).ask(QUESTIONS)
    method = lora(generator, SETTINGS)
    method.prepare(EDITS)
    assert [answer.text for answer in method.ask(QUESTIONS)] == [value for _, value in FACTS]
    assert METHODS["none"](generator, SETTINGS).ask(QUESTIONS) == before
    assert not {answer.text for answer in before} & {value for _, value in FACTS}


def test_without_edits_it_is_the_model_itself(generator):
    method = lora(generator, SETTINGS)
    method.prepare([])
    assert method.ask(QUESTIONS) == METHODS["none"](generator, SETTINGS).ask(QUESTIONS)


def test_an_edit_without_a_prompt_is_learned_as_text(generator):
    method = lora(generator, SETTINGS)
    text, chat = (method._example(edit) for edit in (EditText(0, "It is so."), EDITS[0]))
    decode = generator.tokenizer.decode
    assert (decode(text.ids[: text.given]), decode(text.ids[text.given :])) == ("<bos>", "It is so.<eos>")
    assert decode(chat.ids[: chat.given]).endswith("What is the lamp a?\nassistant:")
    assert decode(chat.ids[chat.given :]) == "12 euros<eos>"


def test_the_prompt_and_the_padding_bear_no_loss():
    ids, labels = _pad([Example((4, 5, 6), given=2), Example((7, 8), given=1)])
    assert ids.tolist() == [[4, 5, 6], [7, 8, 0]]
    assert labels.tolist() == [[-100, -100, 6], [-100, 8, -100]]


@pytest.mark.parametrize(("edits", "steps"), [(3, PASSES), (BATCH_SIZE + 1, 2 * PASSES), (1000, MAX_STEPS)])
def test_work_is_bounded(edits, steps):
    batches = list(_batches([Example((i,), 0) for i in range(edits)], random.Random(0)))
    assert len(batches) == steps
    assert {e for batch in batches for e in batch} == {Example((i,), 0) for i in range(edits)}


def test_other_backends_are_refused(generator):
    with pytest.raises(UnsupportedEngine, match="--backend hf"):
        lora(ChatModel(generator.model_dir, 256), SETTINGS)
