"""ReadBatch: whatever came, left and moved, it holds what a new batch of the same requests holds."""

from __future__ import annotations

import random

import pytest
import torch

from incomes_plugin.gist.spelling import joined
from incomes_plugin.pool.picked import PickedEdit
from incomes_plugin.vllm.batch import PickedTokens, ReadBatch


def request(seed: int, key_dim: int = 4, value_dim: int = 5, ids_below: int = 99) -> PickedTokens:
    """One to three picks of one to nine tokens, in 2 layers with 3 kv heads."""
    choose = random.Random(seed)
    numbers = torch.Generator().manual_seed(seed)
    picks = []
    for i, tokens in enumerate(choose.choices(range(1, 10), k=choose.randint(1, 3))):
        spelled = tokens + choose.randint(0, 9)
        ids = torch.randint(1, ids_below, (spelled, 4), generator=numbers)
        picks.append(
            PickedEdit(
                (f"edit_{seed}_{i}", 1),
                torch.randn(2, 3, tokens, key_dim, generator=numbers).bfloat16(),
                torch.randn(2, 3, tokens, value_dim, generator=numbers).bfloat16(),
                torch.randn(spelled, 6, generator=numbers),
                torch.cat([ids, torch.arange(spelled)[:, None] % tokens, torch.zeros(spelled, 1).long()], 1),
            )
        )
    return PickedTokens.of(picks, torch.randn(len(picks), generator=numbers), 7, None)


def test_a_request_lies_in_its_slot() -> None:
    one, two = request(1), request(2)
    batch = ReadBatch(one.picks[0])
    batch.set([one, two])
    assert batch.requests == [one, two]
    for slot, held in enumerate(batch.requests):
        tokens = len(held.bias)
        for layer in range(2):
            keys = torch.cat([pick.keys[layer] for pick in held.picks], 1).float()
            values = torch.cat([pick.values[layer] for pick in held.picks], 1).float()
            assert torch.equal(batch.keys[layer][slot, ..., :tokens].transpose(-1, -2), keys)
            assert torch.equal(batch.values[layer][slot, :, :tokens], values)
        assert torch.equal(batch.bias[slot, 0, 0, :tokens], held.bias)
        assert batch.bias[slot, 0, 0, tokens:].isneginf().all()
        counts = [pick.keys.shape[2] for pick in held.picks]
        assert batch.edit_of[slot].tolist() == [
            *(i for i, count in enumerate(counts) for _ in range(count)),
            *[-1] * (batch.bias.shape[-1] - tokens),
        ]
        spelled = len(held.copy_bias)
        assert torch.equal(batch.copy_keys[slot, :spelled], torch.cat([pick.copy_keys for pick in held.picks]))
        assert torch.equal(batch.table[slot, :spelled], joined([pick.spelled for pick in held.picks]))
        assert torch.equal(batch.copy_bias[slot, :spelled], held.copy_bias)
        assert batch.copy_bias[slot, spelled:].isneginf().all()
        assert (batch.table[slot, spelled:] == torch.tensor([-1, -2, -2, -2, 0, 0])).all()
        assert batch.said[slot].tolist() == [-1, -1, -1]
        assert not batch.cover[slot].any()


@pytest.mark.parametrize("seed", range(8))
def test_any_history_ends_like_a_new_batch(seed: int) -> None:
    choose = random.Random(seed)
    known = [request(100 * seed + i) for i in range(12)]
    batch = ReadBatch(known[0].picks[0])
    for _ in range(40):
        wanted = choose.sample(known, choose.randint(1, len(known)))
        batch.set(wanted)
        assert sorted(map(id, batch.requests)) == sorted(map(id, wanted))
        fresh = ReadBatch(known[0].picks[0])
        fresh.set(list(batch.requests))
        for ours, theirs in zip((*batch.keys, *batch.values), (*fresh.keys, *fresh.values), strict=True):
            assert ours.shape == theirs.shape
        assert torch.equal(batch.bias, fresh.bias)
        for part in ("edit_of", "copy_bias", "table", "said", "cover"):
            assert torch.equal(getattr(batch, part), getattr(fresh, part))
        for slot, held in enumerate(batch.requests):
            tokens = len(held.bias)
            for ours, theirs in zip(batch.keys, fresh.keys, strict=True):
                assert torch.equal(ours[slot, ..., :tokens], theirs[slot, ..., :tokens])
            for ours, theirs in zip(batch.values, fresh.values, strict=True):
                assert torch.equal(ours[slot, :, :tokens], theirs[slot, :, :tokens])
            spelled = len(held.copy_bias)
            assert torch.equal(batch.copy_keys[slot, :spelled], fresh.copy_keys[slot, :spelled])
        assert all(part.isfinite().all() for part in (*batch.keys, *batch.values, batch.copy_keys))


def test_the_same_requests_cost_nothing() -> None:
    held = [request(1), request(2)]
    batch = ReadBatch(held[0].picks[0])
    batch.set(held)
    views = batch.keys
    batch.set(list(held))
    assert batch.keys is views
