"""What a frozen base says of texts, computed once: nothing that is trained changes it.

in: edits and prompts as token ids; out: for every edit its features and the keys and values of its tokens, for every
prompt the features of its question, and for prompts that reading is trained on what rows that read need: the hidden
states in front of the first reading layer, and keys and values of all earlier tokens in the layers above.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from incomes_plugin.gist.types import GistShape
from incomes_plugin.model.decoder import Decoder, Heads, LayerHook, Past
from incomes_plugin.selection.question import PromptTemplate
from incomes_plugin.selection.routing import QUESTION_TOKENS

_BATCH_TOKENS = 2048
"""Padded tokens of one forward pass."""


@dataclass
class Ragged:
    """Sequences of unequal length, one after the other.

    Attributes:
        flat: `[sum of lengths, ...]`.
        starts: `[n + 1]` int64.
    """

    flat: torch.Tensor
    starts: torch.Tensor

    @classmethod
    def of(cls, parts: Sequence[torch.Tensor]) -> Ragged:
        """Join tensors `[length, ...]`."""
        lengths = torch.tensor([0, *(len(part) for part in parts)])
        return cls(torch.cat(list(parts)) if parts else torch.empty(0), lengths.cumsum(0))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.flat[self.starts[index] : self.starts[index + 1]]

    def padded(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """`[B, longest, ...]`, zeros behind, and the mask `[B, longest]` of real places."""
        parts = [self[index] for index in indices]
        width = max(len(part) for part in parts)
        out = self.flat.new_zeros(len(parts), width, *self.flat.shape[1:])
        mask = torch.zeros(len(parts), width, dtype=torch.bool)
        for row, part in enumerate(parts):
            out[row, : len(part)], mask[row, : len(part)] = part, True
        return out, mask


@dataclass
class EditFeatures:
    """Of edits.

    Attributes:
        features: `[E, F]` each, keys of the feature layers before rotary embedding, not standardised.
        keys: `[E, L', K, D]` each, before rotary embedding.
        values: `[E, L', K, D]` each.
    """

    features: Ragged
    keys: Ragged
    values: Ragged


@dataclass
class ReadingFeatures:
    """Of prompts with answers, for training reading. P = tokens before the first row that reads, R = rows.

    Attributes:
        before: `[P, layers above, 2, K, D]` each, keys before rotary embedding and values; without the common prefix.
        prefixed: `[n]` bool, whether the common prefix stands in front of a prompt.
        prefix: `[prefix tokens, layers above, 2, K, D]`.
        rows: `[R, hidden]` each, in front of the first reading layer: last prompt token and the answer's.
        labels: `[R]` each, the token after each row.
    """

    before: Ragged
    prefixed: torch.Tensor
    prefix: torch.Tensor
    rows: Ragged
    labels: Ragged


class FrozenBase:
    """A base that is only looked at.

    Args:
        decoder: of the base, in its serving dtype.
        template: how it frames texts.
        shape: feature and reading layers; the widths do not matter here.
        prefix: token ids that most prompts begin with (a default system message); computed once for all of them.
    """

    def __init__(
        self, decoder: Decoder, template: PromptTemplate, shape: GistShape, prefix: Sequence[int] = ()
    ) -> None:
        self.decoder = decoder
        self.template = template
        self.shape = shape
        self.prefix = tuple(prefix)
        self._prefix_heads: list[Heads] = []
        if prefix:
            with torch.inference_mode():
                hidden = decoder.embed(torch.tensor([list(prefix)]))
                decoder.run(hidden, 0, decoder.num_layers, on_layer=lambda _, heads: self._prefix_heads.append(heads))

    @property
    def first(self) -> int:
        """First layer that reads."""
        return self.shape.layers[0]

    @torch.inference_mode()
    def edits(self, texts: Sequence[Sequence[int]]) -> EditFeatures:
        """Capture edits, given as token ids of their texts."""
        offset = len(self.template.edit_prefix)
        found: list[tuple[torch.Tensor, ...]] = [()] * len(texts)
        last = max((*self.shape.layers, *self.shape.feature_layers)) + 1
        for batch in _batches([self.template.capture_ids(text) for text in texts]):
            heads = self._heads(batch, last)
            for row, index in enumerate(batch.indices):
                found[index] = self._edit(heads, row, slice(offset, offset + len(texts[index])))
        return EditFeatures(*(Ragged.of(parts) for parts in zip(*found, strict=True)))

    @torch.inference_mode()
    def questions(self, prompts: Sequence[Sequence[int]]) -> Ragged:
        """Features `[T, F]` of each prompt's question."""
        found = [torch.empty(0)] * len(prompts)
        last = max(self.shape.feature_layers) + 1
        for batch in self._split(prompts):
            heads = self._heads(batch, last)
            for row, index in enumerate(batch.indices):
                start, end = self.template.question_span(prompts[index], QUESTION_TOKENS)
                found[index] = self._features(heads, row, slice(max(start - batch.offset, 0), end - batch.offset))
        return Ragged.of(found)

    @torch.inference_mode()
    def answers(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> ReadingFeatures:
        """Prompts with the answers (their end token included) that reading shall give."""
        sequences = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        found: list[tuple[torch.Tensor, ...]] = [()] * len(sequences)
        prefixed = torch.zeros(len(sequences), dtype=torch.bool)
        for batch in self._split(sequences):
            embedded, top = self.decoder.embed(batch.ids), self.decoder.num_layers
            hidden = self._run(batch, embedded, 0, self.first)
            heads: dict[int, Heads] = {}
            self._run(batch, hidden, self.first, top, heads.__setitem__)
            stacked = torch.stack([_both(heads[i]) for i in range(self.first, top)], 2)  # [B, T, layers, 2, K, D]
            for row, index in enumerate(batch.indices):
                start, end = len(prompts[index]) - 1 - batch.offset, len(sequences[index]) - 1 - batch.offset
                after = torch.tensor(sequences[index][len(prompts[index]) :])
                found[index] = (stacked[row, :start].clone(), hidden[row, start:end].clone(), after)
                prefixed[index] = batch.offset > 0
        before, rows, labels = (Ragged.of(parts) for parts in zip(*found, strict=True))
        common = self._prefix_heads[self.first :]
        prefix = torch.stack([_both(h)[0] for h in common], 1) if common else before.flat[:0]
        return ReadingFeatures(before, prefixed, prefix, rows, labels)

    @torch.inference_mode()
    def agrees(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Ragged:
        """Of each answer's tokens `[R]` bool: whether the base itself would say it after all that stands before it."""
        sequences = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        found = [torch.empty(0)] * len(sequences)
        for batch in self._split(sequences):
            hidden = self._run(batch, self.decoder.embed(batch.ids), 0, self.decoder.num_layers)
            for row, index in enumerate(batch.indices):
                start, end = len(prompts[index]) - 1 - batch.offset, len(sequences[index]) - 1 - batch.offset
                said = self.decoder.logits(hidden[row, start:end]).argmax(-1)
                found[index] = said == torch.tensor(answers[index])
        return Ragged.of(found)

    def _split(self, sequences: Sequence[Sequence[int]]) -> Iterator[_Batch]:
        """Batches of sequences with the common prefix, which is cut off, and of those without."""
        count = len(self.prefix)
        has = [bool(count) and tuple(s[:count]) == self.prefix and len(s) > count + 1 for s in sequences]
        for wanted, offset in ((True, count), (False, 0)):
            chosen = [index for index, flag in enumerate(has) if flag is wanted]
            for batch in _batches([sequences[index][offset:] for index in chosen]):
                yield _Batch([chosen[index] for index in batch.indices], batch.ids, batch.mask, offset)

    def _run(
        self, batch: _Batch, hidden: torch.Tensor, first: int, last: int, on_layer: LayerHook | None = None
    ) -> torch.Tensor:
        past, positions = None, None
        if batch.offset:
            heads = self._prefix_heads[first:last]
            places = torch.arange(batch.offset)[None]
            past = Past([h.key for h in heads], [h.value for h in heads], places)
            positions = torch.arange(batch.offset, batch.offset + batch.ids.shape[1]).expand(batch.ids.shape)
        return self.decoder.run(hidden, first, last, positions=positions, mask=batch.mask, past=past, on_layer=on_layer)

    def _heads(self, batch: _Batch, last: int) -> dict[int, Heads]:
        found: dict[int, Heads] = {}
        wanted = {*self.shape.layers, *self.shape.feature_layers}

        def keep(index: int, heads: Heads) -> None:
            if index in wanted:
                found[index] = heads

        self._run(batch, self.decoder.embed(batch.ids), 0, last, keep)
        return found

    def _features(self, heads: dict[int, Heads], row: int, place: slice) -> torch.Tensor:
        return torch.cat([heads[i].key[row, place].flatten(1) for i in self.shape.feature_layers], -1)

    def _edit(self, heads: dict[int, Heads], row: int, place: slice) -> tuple[torch.Tensor, ...]:
        keys, values = (
            torch.stack([getattr(heads[i], name)[row, place] for i in self.shape.layers], 1)
            for name in ("key", "value")
        )
        return self._features(heads, row, place), keys.clone(), values.clone()


def reading_past(found: ReadingFeatures, indices: Sequence[int]) -> tuple[Past, torch.Tensor]:
    """Everything in front of the rows of some prompts, and the position `[B, 1]` of each one's first row."""
    parts = [
        torch.cat([found.prefix, found.before[i]]) if bool(found.prefixed[i]) else found.before[i] for i in indices
    ]
    before, mask = Ragged.of(parts).padded(range(len(parts)))
    width = before.shape[1]
    keys, values = before.unbind(3)
    positions = torch.arange(width).expand(len(parts), width)
    return Past(keys.unbind(2), values.unbind(2), positions, mask), mask.sum(1, keepdim=True)


def _both(heads: Heads) -> torch.Tensor:
    """Keys and values of a layer, `[B, T, 2, K, D]`."""
    return torch.stack([heads.key, heads.value], 2)


@dataclass(frozen=True)
class _Batch:
    indices: list[int]
    ids: torch.Tensor
    mask: torch.Tensor
    offset: int = 0


def _batches(sequences: Sequence[Sequence[int]]) -> Iterator[_Batch]:
    """Sequences of like length together, padded behind."""
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop - start + 1) * len(sequences[order[stop]]) <= _BATCH_TOKENS:
            stop += 1
        indices = order[start:stop]
        width = len(sequences[indices[-1]])
        ids = torch.zeros(len(indices), width, dtype=torch.long)
        mask = torch.zeros(len(indices), width, dtype=torch.bool)
        for row, index in enumerate(indices):
            ids[row, : len(sequences[index])] = torch.tensor(sequences[index])
            mask[row, : len(sequences[index])] = True
        yield _Batch(indices, ids, mask)
        start = stop
