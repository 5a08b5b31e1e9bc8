"""Plain LoRA fine-tuning of a copy of the model on the edits. Once trained it answers without any edit at hand.

As EasyEdit does it: rank 8, alpha 32, Adam, the loss on the target alone, given the rewrite's own prompt. That prompt
is what makes it work: of 100 invented facts the default model then says all, and 1 % trained on the statements instead.

Other than in EasyEdit (q and v, 5e-3, 70 passes, one edit a step) all linear layers are adapted, edits go in batches,
and the rate is 2e-3: 100 % of the rewrites and 95 % of other wordings at 100 edits; with 5e-3 it is 94 % and 84 %. At
most `MAX_STEPS` steps are made: 100 edits of the default model (4 M parameters) take about a minute on one core.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from incomes_plugin.evaluation.interface import Answer, EditText, EvalSettings, Generator, Question, Turn, messages
from incomes_plugin.evaluation.rivals.optional import optional
from incomes_plugin.evaluation.rivals.plain_model import decode, load_plain, require_hf

RANK = 8
ALPHA = 32
LEARNING_RATE = 2e-3
PASSES = 40
BATCH_SIZE = 16
MAX_STEPS = 300
"""The compute bound: with more than about 100 edits each is seen less often than `PASSES` times."""
IGNORED = -100


@dataclass(frozen=True)
class Example:
    """A token row to learn; the first `given` tokens are the prompt and bear no loss."""

    ids: tuple[int, ...]
    given: int


class LoraTuned:
    """A copy of the generator's model, trained on the edits."""

    name = "lora"

    def __init__(self, generator: Generator, settings: EvalSettings) -> None:
        self._generator = generator
        self._settings = settings
        self._stop_id = int(generator.tokenizer.eos_token_id)
        self.model: PreTrainedModel = load_plain(generator.model_dir)

    def prepare(self, edits: Sequence[EditText]) -> None:
        """Train on all edits."""
        if edits:
            self.model = tune(self.model, [self._example(edit) for edit in edits], seed=self._settings.seed)

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Ask the trained copy."""
        return [self._one(self._generator.chat_ids(messages(question))) for question in questions]

    def _example(self, edit: EditText) -> Example:
        """The rewrite's prompt and its target as a chat; an edit without a prompt is learned as the text it is."""
        tokenizer = self._generator.tokenizer
        if edit.prompt is None or edit.target is None:
            start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
            learned = edit.text
        else:
            start = self._generator.chat_ids([Turn("user", edit.prompt)])
            learned = edit.target
        ids = tokenizer(learned, add_special_tokens=False)["input_ids"]
        return Example((*start, *ids, self._stop_id), given=len(start))

    def _one(self, prompt: list[int]) -> Answer:
        tokens = decode(self.model, prompt, max_tokens=self._settings.max_answer_tokens, stop_id=self._stop_id)
        text = str(self._generator.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
        return Answer(text, tuple(tokens), None, 0.0, len(prompt))


def tune(model: PreTrainedModel, examples: Sequence[Example], *, seed: int) -> PreTrainedModel:
    """Train adapters on `examples` and merge them into `model`, which is changed.

    Raises:
        InvalidValue: peft is not installed.
    """
    adapted = _with_adapters(model, seed)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE)
    adapted.train()
    for batch in _batches(examples, random.Random(seed)):
        ids, labels = _pad(batch)
        logits = adapted(input_ids=ids).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged.eval()


def _with_adapters(model: PreTrainedModel, seed: int) -> Any:
    peft = optional("peft")
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: Any = peft.get_peft_model(model, config)
    return adapted


def _batches(examples: Sequence[Example], rng: random.Random) -> Iterator[list[Example]]:
    """Shuffled batches of `PASSES` passes, at most `MAX_STEPS` of them."""
    steps = 0
    for _ in range(PASSES):
        order = rng.sample(examples, len(examples))
        for first in range(0, len(order), BATCH_SIZE):
            if steps == MAX_STEPS:
                return
            yield order[first : first + BATCH_SIZE]
            steps += 1


def _pad(batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels `[B, T]`. Padding is on the right of causal attention and without labels, so it needs no mask."""
    length = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    labels = torch.full((len(batch), length), IGNORED)
    for row, example in enumerate(batch):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        labels[row, example.given : len(example.ids)] = torch.tensor(example.ids[example.given :])
    return ids, labels


def lora(generator: Generator, settings: EvalSettings) -> LoraTuned:
    """Method `lora`. Raises UnsupportedEngine: training a served model is another matter."""
    require_hf(generator, "lora")
    return LoraTuned(generator, settings)
