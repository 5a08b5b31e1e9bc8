"""What answers have said, whatever steps they are made in; and which logits copy."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from incomes_plugin.errors import SelectionFailed, UnsupportedEngine
from incomes_plugin.gist.spelling import joined
from incomes_plugin.selection.copying import Copier, covering, mixed
from incomes_plugin.vllm.batch import PickedTokens, ReadBatch
from incomes_plugin.vllm.copies import CopyingLogits, StepCopies, follow
from incomes_plugin.vllm.rows import RowSpan
from tests.incomes_plugin.vllm.test_batch import request

HIDDEN, LATENT, WIDTH, VOCABULARY = 8, 5, 6, 99


class Answering:
    """A request on its way: which of its positions are computed, and what it has said."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.prompt = self.random.randint(1, 9)
        made = request(seed)
        self.picked: PickedTokens = replace(made, said_at=self.prompt - 1)
        spelled = [int(token) for pick in made.picks for token in pick.spelled[:, 0]]
        self.ids = [self.random.choice([0, *spelled]) for _ in range(self.prompt + 60)]  # 0 is an ordinary token
        self.reached = self.prompt  # tokens there are: those of the prompt, and answered ones
        self.computed = 0

    def step(self) -> RowSpan:
        """Some of the rows that are due; now and then the request was preempted, and a prefix stayed cached."""
        if self.computed >= self.prompt and self.random.random() < 0.2:
            self.computed = self.random.randint(0, self.computed)
        rows = self.random.choice([1, 2, 5, 99])
        span = RowSpan("r", 0, 0, min(rows, self.reached - self.computed), self.computed)
        self.computed += span.num_rows
        return span

    def said(self) -> list[int]:
        """At the last computed row."""
        answered = self.ids[self.prompt : self.computed][::-1][:3]
        return [*answered, *[-1] * (3 - len(answered))]

    def cover(self) -> list[int]:
        """At the last computed row, from the beginning of the answer."""
        table = joined([pick.spelled for pick in self.picked.picks])
        cover, last = torch.zeros(1, len(table), dtype=torch.int64), [-1, -1, -1]
        for token in self.ids[self.prompt : self.computed]:
            cover = covering(cover, table, torch.tensor([last]), torch.tensor([token]))
            last = [token, *last[:2]]
        return list(cover[0].tolist())


def reading(one: Answering, span: RowSpan) -> RowSpan | None:
    """The rows from the last prompt token on, as the runtime names them."""
    skipped = max(0, one.prompt - 1 - span.first_position)
    if span.num_rows <= skipped:
        return None
    return replace(span, num_rows=span.num_rows - skipped, first_position=span.first_position + skipped)


@pytest.mark.parametrize("seed", range(12))
def test_said_is_known_at_every_row_that_answers(seed: int) -> None:
    """In any order of chunks and preemptions, with requests that leave the batch for some steps."""
    everyone = [Answering(100 * seed + i) for i in range(5)]
    batch, choose, checked = ReadBatch(everyone[0].picked.picks[0]), random.Random(seed), 0
    for _ in range(150):
        turn = [one for one in everyone if choose.random() < 0.8 and one.reached < len(one.ids)]
        spans = {id(one.picked): (one, read) for one in turn if (read := reading(one, one.step())) is not None}
        if not spans:
            continue
        batch.set([one.picked for one, _ in spans.values()])
        ordered = [spans[id(picked)] for picked in batch.requests]
        ids = [one.ids[read.first_position + row] for one, read in ordered for row in range(read.num_rows)]
        follow(batch, [read for _, read in ordered], torch.tensor(ids, dtype=torch.int32))
        for slot, (one, _) in enumerate(ordered):
            if one.computed == one.reached:  # else vLLM samples nothing
                assert batch.said[slot].tolist() == one.said()
                assert batch.cover[slot, : len(one.picked.copy_bias)].tolist() == one.cover()
                one.reached += 1
                checked += 1
    assert checked > 100


def test_tokens_that_were_never_seen_are_an_error() -> None:
    one = request(1)
    batch = ReadBatch(one.picks[0])
    batch.set([one])
    with pytest.raises(SelectionFailed, match="position 7"):
        follow(batch, [RowSpan("r", 0, 0, 1, one.said_at + 3)], torch.tensor([5]))


def test_what_was_said_outlives_two_preemptions_with_a_longer_cached_prefix_each() -> None:
    """Another answer to the same prompt says the same, so a prefix may be cached behind what was computed again."""
    one = request(1)
    batch = ReadBatch(one.picks[0])
    batch.set([one])
    first = one.said_at + 1
    for position in range(first, first + 20):
        follow(batch, [RowSpan("r", 0, 0, 1, position)], torch.tensor([position]))
    follow(batch, [RowSpan("r", 0, 0, 5, first + 2)], torch.arange(first + 2, first + 7))
    follow(batch, [RowSpan("r", 0, 0, 1, first + 20)], torch.tensor([first + 20]))
    assert batch.said[0].tolist() == [first + 20, first + 19, first + 18]


class Model:
    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
        output = torch.arange(HIDDEN * VOCABULARY).view(HIDDEN, -1).to(hidden)
        return None if hidden.isnan().any() else (hidden[..., None] * output).sum(1)  # the same bits for any batch


@pytest.fixture
def batch() -> ReadBatch:
    batch = ReadBatch(request(1).picks[0])
    batch.set([request(1), request(2)])
    return batch


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([3, 0])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rows_that_copy_are_mixtures_once(batch: ReadBatch, rows: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, copier, hidden = Model(), Copier(HIDDEN, LATENT, WIDTH), (torch.randn(4, HIDDEN) / 40).to(dtype)
    stock = model.compute_logits(hidden)
    logits = CopyingLogits(model, copier)
    logits.leave(StepCopies(batch, rows, 4))
    other = model.compute_logits(hidden[:3])  # of a prompt, say
    assert other.dtype == dtype
    assert torch.equal(other, stock[:3])
    found = model.compute_logits(hidden)
    expected = mixed(stock[rows], batch.copied(hidden[rows], copier), batch.table[..., 0])
    torch.testing.assert_close(found[rows], expected, atol=1e-5, rtol=1e-5)
    assert not torch.equal(found[rows], stock[rows].float())
    plain = [row for row in range(4) if row not in torch.arange(4)[rows].tolist()]
    assert torch.equal(found[plain], stock[plain].float())
    assert torch.equal(model.compute_logits(hidden), stock)
    logits.check_taken()


def test_logits_that_were_not_taken_are_an_error_once(batch: ReadBatch) -> None:
    model = Model()
    logits = CopyingLogits(model, Copier(HIDDEN, LATENT, WIDTH))
    logits.leave(StepCopies(batch, slice(0, 2), 2))
    with pytest.raises(SelectionFailed, match="nothing copied"):
        logits.check_taken()
    logits.check_taken()


def test_a_rank_without_logits_takes_what_was_left(batch: ReadBatch) -> None:
    model = Model()
    logits = CopyingLogits(model, Copier(HIDDEN, LATENT, WIDTH))
    logits.leave(StepCopies(batch, slice(0, 2), 2))
    assert model.compute_logits(torch.full((2, HIDDEN), torch.nan)) is None
    logits.check_taken()


def test_a_model_without_logits_is_refused() -> None:
    with pytest.raises(UnsupportedEngine, match="computes no logits"):
        CopyingLogits(SimpleNamespace(), Copier(HIDDEN, LATENT, WIDTH))
