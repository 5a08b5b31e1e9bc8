"""A run that was interrupted ends where one that was not ends."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from incomes_plugin.lab.adapt import training
from incomes_plugin.lab.adapt.training import Descent, descend


class Interrupted(Exception):
    pass


def trained(path, steps=20, stop=None, seen=None):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def loss_of(rng: random.Random) -> torch.Tensor:
        return module(torch.full((2, 4), rng.random())).square().mean()

    def tick(step: int, _: int, loss: float) -> None:
        if seen is not None:
            seen.append((step, loss))
        if step == stop:
            raise Interrupted

    descend(module, loss_of, Descent(steps, 1e-2), seed=3, tick=tick, checkpoint=path)
    return module


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY_S", 0.0)
    whole, parts = [], []
    expected = trained(None, seen=whole)
    with pytest.raises(Interrupted):
        trained(tmp_path / "state.pt", stop=8)
    found = trained(tmp_path / "state.pt", seen=parts)
    assert parts == whole
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name]), name
    assert not found.training


def test_a_finished_run_is_not_repeated(tmp_path):
    first = trained(tmp_path / "state.pt")
    changed = (tmp_path / "state.pt").stat().st_mtime_ns
    again = trained(tmp_path / "state.pt")
    assert torch.equal(first[0].weight, again[0].weight)
    assert (tmp_path / "state.pt").stat().st_mtime_ns == changed
