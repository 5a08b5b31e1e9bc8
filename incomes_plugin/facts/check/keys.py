"""Questions -> keys: what the model asks with where the answer begins, whitened with its own covariance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from incomes_plugin.facts.memories import Whitening
from incomes_plugin.model.hf import EditableModel
from incomes_plugin.training.data.facts import FactSource

SAMPLES = 1024
"""Questions about invented facts of the training part, from which the covariance is measured."""

_SEED = 41
_AT_ONCE = 64


class Asker:
    """A model that turns questions into keys.

    Attributes:
        width: E = H D, all query heads of the first gist layer.
        whitening: of its keys.
    """

    def __init__(self, model_dir: Path, samples: int = SAMPLES) -> None:
        self.model = EditableModel.load(model_dir)
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model_dir)
        source = FactSource(_SEED, held_out=False)
        self.whitening = Whitening.fit(self.raw([source.fact().question for _ in range(samples)]))
        self.width = len(self.whitening.mean)

    def raw(self, questions: Sequence[str]) -> torch.Tensor:
        """Un-rotated queries `[B, E]` float32 of the last token of each chat, at the first gist layer."""
        return torch.cat(list(self._parts([self.chat_ids(question) for question in questions])))

    def chat_ids(self, question: str) -> list[int]:
        """Token ids of a user message that is to be answered."""
        chat = [{"role": "user", "content": question}]
        return self.ids(str(self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)))

    def ids(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]

    def _parts(self, rows: Sequence[list[int]]) -> Iterator[torch.Tensor]:
        for first in range(0, len(rows), _AT_ONCE):
            part = rows[first : first + _AT_ONCE]
            ids = torch.zeros(len(part), max(map(len, part)), dtype=torch.long)
            for line, row in zip(ids, part, strict=True):
                line[: len(row)] = torch.tensor(row)
            queries = self.model.queries(ids).flatten(-2).float()
            yield queries[torch.arange(len(part)), torch.tensor([len(row) - 1 for row in part])]
