"""Chunks for the paper's losses: a pool of edits, a question about each, and the same with the edit in sight.

The student sees `begin first_open QUESTION close ANSWER end`; the informed teacher the same with the edit as the system
message. Both end with the same tokens, so positions are matched from the end.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch

from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.training.data.corpus import EditRecord
from incomes_plugin.training.data.facts import FactSource
from incomes_plugin.training.data.vocabulary import Vocabulary
from incomes_plugin.training.paper.recipe import PaperRecipe

_CLOZES = 0.2
"""Share of questions about invented facts that are sentences to complete."""


@dataclass(frozen=True)
class Sample:
    """Token ids of one edit and one question about it; `start` tokens precede the question in `plain`."""

    edit: list[int]
    plain: list[int]
    informed: list[int]
    start: int
    answer: int


@dataclass(frozen=True)
class Chunk:
    """Tensors of one chunk; P edits and as many questions.

    Attributes:
        edit_ids: `[P, Le]` capture prompts, right-padded.
        gist_at: `[P]` position of the gist token.
        plain: `[P, T]` questions with answers, right-padded.
        informed: `[P, Ti]` the same with the edit in front, right-padded.
        shift: `[P]` position in `informed` minus position in `plain`, of the text both share.
        text: `[P, T]` True where the next token is text that both share.
        answer: `[P, T]` True where the next token is of the answer, its end included.
    """

    edit_ids: torch.Tensor
    gist_at: torch.Tensor
    plain: torch.Tensor
    informed: torch.Tensor
    shift: torch.Tensor
    text: torch.Tensor
    answer: torch.Tensor

    def to(self, device: torch.device) -> Chunk:
        """The same chunk on a device."""
        return Chunk(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


class ChunkSource:
    """Endless chunks; the same seed makes the same ones."""

    def __init__(
        self, words: Vocabulary, adapter: EditAdapter, records: Sequence[EditRecord], recipe: PaperRecipe, *, seed: int
    ) -> None:
        self._words = words
        self._adapter = adapter
        self._records = records
        self._recipe = recipe
        self._rng = random.Random(seed)
        self._facts = FactSource(seed, held_out=False)

    def update(self) -> Iterator[Chunk]:
        """The chunks of one update."""
        left = self._recipe.samples
        while left > 0:
            size = min(left, self._rng.choices(self._recipe.pool_sizes, self._recipe.pool_shares)[0])
            left -= size
            yield self.chunk(size)

    def chunk(self, size: int) -> Chunk:
        """A pool of `size` different edits and a question about each."""
        samples: dict[tuple[int, ...], Sample] = {}
        while len(samples) < size:
            sample = self._sample()
            fits = len(sample.edit) <= self._recipe.max_edit_tokens and len(sample.informed) <= self._recipe.max_tokens
            if fits:
                samples.setdefault(tuple(sample.edit), sample)
        return self._tensors(list(samples.values()))

    def _sample(self) -> Sample:
        if self._records and self._rng.random() < self._recipe.published:
            record = self._rng.choice(self._records)
            return self._chat(record.statement, self._rng.choice(record.prompts), record.answer)
        fact = self._facts.fact()
        question = fact.cloze if self._rng.random() < _CLOZES else fact.question
        return self._chat(fact.statement, question, fact.answer)

    def _chat(self, statement: str, question: str, answer: str) -> Sample:
        words = self._words
        edit, reply = words.encode(statement), [*words.encode(answer), *words.end]
        shared = [*words.encode(question), *words.close, *reply]
        plain = [*words.begin, *words.first_open]
        informed = [*words.begin, *words.system_open, *edit, *words.system_next]
        return Sample(edit, plain + shared, informed + shared, len(plain), len(reply))

    def _tensors(self, samples: list[Sample]) -> Chunk:
        captures = [self._adapter.capture_ids(s.edit) for s in samples]
        lengths = torch.tensor([len(s.plain) for s in samples])
        starts, answers = torch.tensor([s.start for s in samples]), torch.tensor([s.answer for s in samples])
        place = torch.arange(int(lengths.max()))[None]
        last = (lengths - 1)[:, None]
        return Chunk(
            edit_ids=_padded(captures),
            gist_at=torch.tensor([len(ids) - 1 for ids in captures]),
            plain=_padded([s.plain for s in samples]),
            informed=_padded([s.informed for s in samples]),
            shift=torch.tensor([len(s.informed) - len(s.plain) for s in samples]),
            text=(place >= starts[:, None]) & (place < last),
            answer=(place >= last - answers[:, None]) & (place < last),
        )


def _padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """`[B, T]`, padded on the right with 0, which nothing reads."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
