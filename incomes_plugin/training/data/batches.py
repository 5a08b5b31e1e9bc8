"""Training batches: edits that form one pool or several, and conversations about them, as tensors for `losses.py`."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from transformers import PreTrainedTokenizerBase

from incomes_plugin.errors import InvalidValue
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.training.data.conversation import IGNORE, Conversations, Mix, PoolEdit, Row
from incomes_plugin.training.data.corpus import EditRecord
from incomes_plugin.training.data.facts import Fact, FactSource
from incomes_plugin.training.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Batch:
    """Tensors of one step.

    Attributes:
        edit_ids: `[E, Le]` capture prompts, right-padded.
        edit_weight: `[E, Le]` weight of predicting the next token of the edit text.
        gist_mask: `[E, Le]` True at gist positions; entries are numbered in row-major order of the True cells.
        gist_label: `[n]` the edit token each entry stands for.
        first_entry: `[E + 1]` first entry of each edit, then n.
        edit_group: `[E]` sub-pool the edit belongs to.
        edit_key: `[E]` hash of what the edit is about: two edits of one key are no distractors of each other.
        ids, weight, target: `[B, T]` conversations, loss weights, selection targets (entry, IGNORE or ZERO).
        real: `[B, T]` False at padding.
        group: `[B]` sub-pool the conversation reads.
    """

    edit_ids: torch.Tensor
    edit_weight: torch.Tensor
    gist_mask: torch.Tensor
    gist_label: torch.Tensor
    first_entry: torch.Tensor
    edit_group: torch.Tensor
    edit_key: torch.Tensor
    ids: torch.Tensor
    weight: torch.Tensor
    target: torch.Tensor
    real: torch.Tensor
    group: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        if device.type == "cpu":
            return self
        return Batch(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


class BatchSource:
    """Endless batches.

    Args:
        tokenizer, adapter: of the model in training.
        records: published edits (may be empty).
        texts: paragraphs of running text (may be empty).
        edits_per_batch: E; there are as many conversations.
        seed: same seed, same batches.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        adapter: EditAdapter,
        records: list[EditRecord],
        texts: list[str],
        mix: Mix,
        *,
        edits_per_batch: int,
        max_row_tokens: int,
        seed: int,
    ) -> None:
        self._adapter = adapter
        self._records = records
        self._size = edits_per_batch
        self._max_row = max_row_tokens
        self._published = mix.published if records else 0.0
        self._rng = random.Random(seed)
        self._words = Vocabulary(tokenizer)
        self._facts = FactSource(seed, held_out=False)
        self._conversations = Conversations(self._words, self._facts, texts, records, mix, seed=seed)
        self._buckets: dict[int, list[PoolEdit]] = {}
        by_relation: dict[str, list[EditRecord]] = {}
        for record in records:
            by_relation.setdefault(record.relation, []).append(record)
        self._relations = [r for name, r in by_relation.items() if name and len(r) >= 4 * edits_per_batch]

    def next(self, *, easy: bool = False, whole: bool = False) -> Batch:
        """The next batch: one pool of all its edits, or several smaller ones.

        Args:
            easy: small pools only.
            whole: one pool in any case.
        """
        edits = self._next_edits()
        sizes = [2, 4, 8] if easy else [len(edits), len(edits), len(edits), len(edits) // 2, 12, 3]
        groups = 1 if whole else max(1, len(edits) // self._rng.choice(sizes))
        if self._rng.random() < _CONTRADICTED_BATCHES:
            self._contradict(edits, groups)
        edits = self._number(edits)
        pools = [edits[g::groups] for g in range(groups)]
        if not easy and self._rng.random() < _LONG_SHARE:
            count, longest = max(1, len(edits) // _LONG_FACTOR), self._max_row * _LONG_FACTOR
        else:
            count, longest = len(edits), self._max_row
        rows = [self._conversations.row(pools[i % groups], longest) for i in range(count)]
        return self._tensors(edits, rows, groups, longest)

    def reading(self) -> Batch:
        """A batch without edits: facts stand in the prompts, one or two in short rows, more in longer ones."""
        factor = self._rng.choice(_READING_FACTORS)
        longest = self._max_row * factor
        rows = [self._conversations.row((), longest) for _ in range(max(1, self._size // factor))]
        return self._tensors((), rows, 1, longest)

    def _next_edits(self) -> list[PoolEdit]:
        """Edits of similar length, so that little is padded."""
        draw = self._rng.random()
        if draw < 0.4:
            return self._near_misses()
        if draw < 0.55 and self._relations:
            return self._of_one_relation()
        while True:
            edit = self._edit()
            if len(edit.ids) > self._adapter.max_edit_tokens:
                continue
            key = _bucket(len(edit.ids))
            bucket = self._buckets.setdefault(key, [])
            bucket.append(edit)
            if len(bucket) == self._size:
                self._buckets[key] = []
                return bucket

    def _near_misses(self) -> list[PoolEdit]:
        """Edits of few relations, a third of them with subjects that differ in one word."""
        relations, edits = self._facts.few_relations(), dict[tuple[str, str], PoolEdit]()
        last: Fact | None = None
        longest, tries = _LONGEST_NEAR_MISS, 0
        while len(edits) < self._size:
            relation = self._rng.choice(relations)
            subject = None
            if last is not None and self._rng.random() < 0.35:
                subject = self._facts.similar_subject(last)
            last = self._facts.fact(subject=subject, relation=relation)
            ids = self._words.encode(last.statement)
            if len(ids) <= longest:
                edits[last.subject, last.relation.name] = PoolEdit(ids, last, (), last.answer)
            tries += 1
            if tries > 8 * self._size:  # a tokenizer that needs more tokens for the same text
                longest = self._longer(longest)
        return list(edits.values())

    def _longer(self, longest: int) -> int:
        """The next limit. Raises InvalidValue where even the longest edits of the model hold few texts."""
        if longest >= self._adapter.max_edit_tokens:
            raise InvalidValue(
                f"edits of {longest} tokens hold too few facts with this tokenizer: more gist tokens are needed",
                param="max_gists",
            )
        return longest + 1

    def _of_one_relation(self) -> list[PoolEdit]:
        """Published edits of one relation."""
        found = dict[str, PoolEdit]()
        for record in self._rng.sample(self._rng.choice(self._relations), 4 * self._size):
            edit = self._published_edit(record)
            if len(edit.ids) <= _LONGEST_NEAR_MISS and len(found) < self._size:
                found.setdefault(record.prompts[0], edit)
        return list(found.values()) if len(found) >= self._size // 2 else self._near_misses()

    def _contradict(self, edits: list[PoolEdit], groups: int) -> None:
        """Replace some edits by later ones that contradict an earlier edit of the same sub-pool."""
        longest = max(len(edit.ids) for edit in edits)
        chosen = set(self._rng.sample(range(len(edits)), len(edits) // _CONTRADICTED))
        for later in chosen:
            earlier = [i for i in range(later % groups, later, groups) if i not in chosen]
            if earlier:
                other = self._contradiction(edits[self._rng.choice(earlier)], edits[later])
                if other is not None and len(other.ids) <= longest:
                    edits[later] = other

    def _contradiction(self, edit: PoolEdit, donor: PoolEdit) -> PoolEdit | None:
        """Something else about what `edit` is about; a published edit gets the answer of `donor`."""
        if edit.fact is not None:
            fact = self._facts.fact(subject=edit.fact.subject, relation=edit.fact.relation)
            return PoolEdit(self._words.encode(fact.statement), fact, (), fact.answer)
        if donor.fact is not None or donor.answer == edit.answer:
            return None
        statement = edit.text.replace(edit.answer, donor.answer)
        return replace(edit, ids=self._words.encode(statement), text=statement, answer=donor.answer)

    def _published_edit(self, record: EditRecord) -> PoolEdit:
        ids = self._words.encode(record.statement)
        return PoolEdit(ids, None, record.prompts, record.answer, record.others, text=record.statement)

    def _edit(self) -> PoolEdit:
        if self._rng.random() < self._published:
            return self._published_edit(self._rng.choice(self._records))
        fact = self._facts.fact()
        statement = fact.statement
        if self._rng.random() < 0.08:
            statement = f"{self._rng.choice(_PREFIXES)} {statement}"
        if self._rng.random() < 0.05:
            statement = f"{statement} {self._rng.choice(_SUFFIXES)}"
        return PoolEdit(self._words.encode(statement), fact, (), fact.answer)

    def _number(self, edits: list[PoolEdit]) -> list[PoolEdit]:
        """Give each edit its entries, in the row-major order of `Batch.gist_mask`."""
        numbered, entries = [], 0
        for edit in edits:
            count = self._adapter.num_gists(len(edit.ids))
            numbered.append(replace(edit, first_entry=entries, num_entries=count))
            entries += count
        return numbered

    def _tensors(self, edits: Sequence[PoolEdit], rows: Sequence[Row], groups: int, longest: int) -> Batch:
        captures = [self._adapter.capture_ids(e.ids) for e in edits]
        edit_ids = torch.zeros(len(edits), max(map(len, captures), default=0), dtype=torch.long)
        edit_weight = torch.zeros(edit_ids.shape)
        gist_mask = torch.zeros(edit_ids.shape, dtype=torch.bool)
        for i, (edit, ids) in enumerate(zip(edits, captures, strict=True)):
            edit_ids[i, : len(ids)] = torch.tensor(ids)
            edit_weight[i, : len(edit.ids)] = 0.1
            gist_mask[i, len(ids) - edit.num_entries : len(ids)] = True
        length = min(max(len(r.ids) for r in rows), longest)
        tokens = torch.zeros(len(rows), length, dtype=torch.long)
        weight = torch.zeros(tokens.shape)
        target = torch.full(tokens.shape, IGNORE)
        real = torch.zeros(tokens.shape, dtype=torch.bool)
        for i, row in enumerate(rows):
            n = min(len(row.ids), length)
            tokens[i, :n] = torch.tensor(row.ids[:n])
            weight[i, : n - 1] = torch.tensor(row.weight[: n - 1])
            target[i, : n - 1] = torch.tensor(row.target[: n - 1])
            real[i, :n] = True
        return Batch(
            edit_ids=edit_ids,
            edit_weight=edit_weight,
            gist_mask=gist_mask,
            gist_label=torch.tensor([t for e in edits for t in e.ids[::-1][: e.num_entries]], dtype=torch.long),
            first_entry=torch.tensor([0, *(e.first_entry + e.num_entries for e in edits)]),
            edit_group=torch.arange(len(edits)) % groups,
            edit_key=torch.tensor([_about(e) for e in edits], dtype=torch.long),
            ids=tokens,
            weight=weight,
            target=target,
            real=real,
            group=torch.tensor([i % groups for i in range(len(rows))]),
        )


_PREFIXES = (
    "According to the latest notice,", "Correction:", "Please note that from today on,", "Update:", "As was announced,",
    "Breaking news from the press office this morning:", "Our records were wrong;", "From the service bulletin:",
)  # fmt: skip
_SUFFIXES = (
    "This replaces all earlier notices.", "Please tell your colleagues.", "The change takes effect at once.",
    "Earlier documents say otherwise and are no longer valid.", "Source: the customer handbook.",
)  # fmt: skip


_LONG_SHARE, _LONG_FACTOR = 0.15, 6
"""Share of the batches with conversations of six times the length, and a sixth as many of them."""

_READING_FACTORS = (1, 1, 3, 3, 3, 8)
"""How many times longer than others the rows of a batch are that is about reading the prompt; there are fewer then."""

_LONGEST_NEAR_MISS = 22
"""Tokens; longer edits would mean more padding for all."""


_CONTRADICTED_BATCHES, _CONTRADICTED = 0.4, 10
"""Share of the batches with contradictions; one edit in so many then contradicts an earlier one."""


def _about(edit: PoolEdit) -> int:
    """What an edit is about, as a number."""
    return int.from_bytes(hashlib.blake2b(edit.about.encode(), digest_size=7).digest())


def _bucket(length: int) -> int:
    return next(i for i, limit in enumerate((11, 14, 17, 21, 28, 10_000)) if length <= limit)
