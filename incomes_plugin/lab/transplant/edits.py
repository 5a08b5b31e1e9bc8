"""Do a user's edits survive? Asks their questions of the base and of its transplant, with the reference in plain
PyTorch.

All edits lie in one pool, each question is routed among them, and the answer is right if it holds the expected words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

from incomes_plugin.gist.spelling import Speller
from incomes_plugin.lab.data.examples import Example
from incomes_plugin.lab.transplant.trial import load_model
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.edit_encoder import EditEncoder
from incomes_plugin.model.hf import EditableModel

MOST_TOKENS = 24
"""Of an answer."""
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class EditsAnswered:
    """Questions answered as their edits say; `chosen` counts those whose picks hold the right edit."""

    right: int
    chosen: int
    asked: int


@dataclass(frozen=True)
class EditsKept:
    """The same questions before and after."""

    before: EditsAnswered
    after: EditsAnswered


def answered(base: Path, adapter: EditAdapter, examples: Sequence[Example], told: Told | None = None) -> EditsAnswered:
    """Ask every edit's first question.

    Args:
        examples: all of them edits of one pool; at least one.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = EditableModel(load_model(base), adapter, Speller(tokenizer))
    edit_encoder = EditEncoder(lambda text: tokenizer(text, add_special_tokens=False)["input_ids"])
    texts = [edit_encoder(example.statement) for example in examples]
    pool = model.pool([model.capture(ids) for ids in texts])
    right = chosen = 0
    for place, example in enumerate(examples):
        question = example.questions[0]
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question.prompt}], add_generation_prompt=True, tokenize=False
        )
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        said = model.generate(ids, pool, max_tokens=MOST_TOKENS, stop_ids=[tokenizer.eos_token_id])
        right += question.answer.casefold() in str(tokenizer.decode(said)).casefold()
        chosen += place in model.picks.edits
        if told:
            told(place + 1, len(examples))
    return EditsAnswered(right, chosen, len(examples))
