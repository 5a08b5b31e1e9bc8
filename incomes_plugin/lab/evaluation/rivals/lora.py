"""Plain LoRA fine-tuning of a copy of the base on the edits. Once trained it answers without any edit at hand.

As EasyEdit does it: rank 8, alpha 32, Adam, the loss on the target alone, given the rewrite's own prompt. Other than
there (q and v, 5e-3, 70 passes, one edit a step) all linear layers are adapted, and edits go in batches. Training ends
when a pass has learned its answers, or after `MAX_STEPS` steps. The merged copy is asked on the same backend.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AutoConfig, PreTrainedModel

from incomes_plugin.lab.evaluation.backends.plain import load_plain
from incomes_plugin.lab.evaluation.interface import (
    Answer,
    Done,
    EvalEdit,
    EvalQuestion,
    EvalSettings,
    Generator,
    Turn,
    messages,
    nothing,
)
from incomes_plugin.lab.evaluation.rivals.optional import optional

RANK = 8
ALPHA = 32
LEARNING_RATE = 5e-4
PASSES = 40
BATCH_SIZE = 16
MAX_STEPS = 300
"""The compute bound: with more than about 100 edits each is seen less often than `PASSES` times."""

LEARNED = 0.02
"""Mean loss of a pass, in nats per token, at which its answers count as learned."""

IGNORED = -100


@dataclass(frozen=True)
class LoraExample:
    """A token row to learn; the first `given` tokens are the prompt and bear no loss."""

    ids: tuple[int, ...]
    given: int


class LoraTuned:
    """A copy of the generator's base, trained on the edits."""

    name = "lora"

    def __init__(self, generator: Generator, settings: EvalSettings) -> None:
        self._generator = generator
        self._settings = settings
        self._stop_id = int(generator.tokenizer.eos_token_id)
        self._folder: TemporaryDirectory[str] | None = None
        self._tuned: Generator | None = None

    def prepare(self, edits: Sequence[EvalEdit]) -> None:
        """Train on all edits, write the merged copy, and start it."""
        model = load_plain(self._generator.base_dir)
        if edits:
            model = tune(model, [self._example(edit) for edit in edits], seed=self._settings.seed)
        self._folder = TemporaryDirectory(prefix="incomes-lora-")
        folder = Path(self._folder.name)
        model.type(_dtype_of(self._generator.base_dir)).save_pretrained(folder)
        self._generator.tokenizer.save_pretrained(folder)
        self._tuned = self._generator.sibling(folder)

    def ask(self, questions: Sequence[EvalQuestion], done: Done = nothing) -> list[Answer]:
        """Ask the trained copy."""
        assert self._tuned is not None, "prepare comes first"
        prompts = [self._generator.chat_ids(messages(question)) for question in questions]
        return self._tuned.generate(prompts, None, self._settings.max_answer_tokens, done)

    def close(self) -> None:
        """Stop the trained copy and delete it."""
        if self._tuned is not None:
            self._tuned.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _example(self, edit: EvalEdit) -> LoraExample:
        """The rewrite's prompt and its target as a chat; an edit without a prompt is learned as the text it is."""
        tokenizer = self._generator.tokenizer
        if edit.prompt is None or edit.target is None:
            start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
            learned = edit.text
        else:
            start = self._generator.chat_ids([Turn("user", edit.prompt)])
            learned = edit.target
        ids = tokenizer(learned, add_special_tokens=False)["input_ids"]
        return LoraExample((*start, *ids, self._stop_id), given=len(start))


def _dtype_of(base_dir: Path) -> torch.dtype:
    """What the base's weights are stored in."""
    dtype = AutoConfig.from_pretrained(base_dir).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def tune(model: PreTrainedModel, examples: Sequence[LoraExample], *, seed: int) -> PreTrainedModel:
    """Train adapters on `examples` and merge them into `model`, which is changed.

    Raises:
        InvalidValue: peft is not installed.
    """
    adapted = _with_adapters(model, seed)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE)
    adapted.train()
    for batches in _passes(examples, random.Random(seed)):
        losses = []
        for batch in batches:
            ids, labels = _pad(batch)
            logits = adapted(input_ids=ids).logits[:, :-1]
            loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
        if sum(losses) <= LEARNED * len(losses):
            break
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged.eval()


def _with_adapters(model: PreTrainedModel, seed: int) -> Any:
    peft = optional("peft")
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: Any = peft.get_peft_model(model, config)
    return adapted


def _passes(examples: Sequence[LoraExample], rng: random.Random) -> Iterator[list[list[LoraExample]]]:
    """At most `PASSES` passes of shuffled batches, and `MAX_STEPS` batches in all."""
    left = MAX_STEPS
    for _ in range(PASSES):
        order = rng.sample(examples, len(examples))
        batches = [order[first : first + BATCH_SIZE] for first in range(0, len(order), BATCH_SIZE)][:left]
        left -= len(batches)
        if not batches:
            return
        yield batches


def _pad(batch: Sequence[LoraExample]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels `[B, T]`. Padding is on the right of causal attention and without labels, so it needs no mask."""
    length = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    labels = torch.full((len(batch), length), IGNORED)
    for row, example in enumerate(batch):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        labels[row, example.given : len(example.ids)] = torch.tensor(example.ids[example.given :])
    return ids, labels


def lora(generator: Generator, settings: EvalSettings) -> LoraTuned:
    """Method `lora`."""
    return LoraTuned(generator, settings)
