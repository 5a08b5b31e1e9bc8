"""Every kind of memory by name: how it is written, and how it takes in later facts. The check and the tests iterate it.

A kind whose facts share values stores answers, M of them; the others store a code of their own for each fact, M = N.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from incomes_plugin.lab.facts.memories import rules
from incomes_plugin.lab.facts.memories.attention import AttentionMemory
from incomes_plugin.lab.facts.memories.linear import LinearMemory
from incomes_plugin.lab.facts.memories.mlp import MLPMemory
from incomes_plugin.lab.facts.memories.recursive import RecursiveMemory
from incomes_plugin.lab.facts.theory import MLP_OWN, MLP_SHARED, logit_scale

Memory = LinearMemory | MLPMemory | AttentionMemory
TRAINING_STEPS = 300
MLP_STEPS = 1500
_SPARE = 2.0
"""The MLP gets twice the hidden units that the paper's fit asks for."""


@dataclass(frozen=True)
class Facts:
    """What a memory is written with.

    Attributes:
        keys: `[N, E]`, of length 1.
        codes: `[M, U]`, of all values there are or will be.
        places: `[N]` int64, place of each fact's code.
    """

    keys: torch.Tensor
    codes: torch.Tensor
    places: torch.Tensor

    @property
    def values(self) -> torch.Tensor:
        """`[N, U]`."""
        return self.codes[self.places]

    def part(self, some: slice) -> Facts:
        """Some of the facts; all codes."""
        return Facts(self.keys[some], self.codes, self.places[some])

    def joined(self, later: Facts) -> Facts:
        """These and later ones."""
        return Facts(torch.cat([self.keys, later.keys]), self.codes, torch.cat([self.places, later.places]))


@dataclass(frozen=True)
class MemoryKind:
    """One kind of memory.

    Attributes:
        name: in tables.
        write: a memory of these facts.
        add: a memory (with the facts that are in it) and later ones in, a memory of both out.
        whitened: its keys are whitened; else only of length 1.
        shares: its values are answers, which facts may share.
        needs_old: `add` solves for all facts anew.
    """

    name: str
    write: Callable[[Facts], Memory]
    add: Callable[[Memory, Facts, Facts], Memory]
    whitened: bool = True
    shares: bool = False
    needs_old: bool = False


def _hebbian(facts: Facts) -> Memory:
    return LinearMemory(rules.hebbian(facts.keys, facts.values))


def _hebbian_more(memory: Memory, _old: Facts, new: Facts) -> Memory:
    assert isinstance(memory, LinearMemory)
    return LinearMemory(memory.matrix + rules.hebbian(new.keys, new.values))


def _ridge(facts: Facts) -> Memory:
    return LinearMemory(rules.ridge(facts.keys, facts.values))


def _ridge_more(_memory: Memory, old: Facts, new: Facts) -> Memory:
    return _ridge(old.joined(new))


def _recursive(facts: Facts) -> Memory:
    memory = RecursiveMemory(facts.keys.shape[1], facts.codes.shape[1])
    memory.insert([str(place) for place in range(len(facts.keys))], facts.keys, facts.values)
    return memory


def _recursive_more(memory: Memory, old: Facts, new: Facts) -> Memory:
    assert isinstance(memory, RecursiveMemory)
    memory.insert([str(len(old.keys) + place) for place in range(len(new.keys))], new.keys, new.values)
    return memory


def _trained(facts: Facts, start: torch.Tensor | None = None) -> Memory:
    return LinearMemory(rules.trained(facts.keys, facts.codes, facts.places, steps=TRAINING_STEPS, start=start))


def _trained_more(memory: Memory, _old: Facts, new: Facts) -> Memory:
    """Train on with the new facts alone, as fine-tuning does."""
    assert isinstance(memory, LinearMemory)
    return _trained(new, memory.matrix)


def _mlp(facts: Facts) -> Memory:
    """One value for each fact."""
    return _mlp_of(facts, MLP_OWN * len(facts.keys) * math.log(len(facts.keys)))


def _mlp_shared(facts: Facts) -> Memory:
    return _mlp_of(facts, MLP_SHARED * len(facts.keys))


def _mlp_of(facts: Facts, parameters: float) -> Memory:
    """An MLP of twice the first layer that theory asks for."""
    hidden = 16 * (1 + int(_SPARE * parameters / facts.keys.shape[1] / 16))
    return MLPMemory.fit(facts.keys, facts.codes, facts.places, hidden, steps=MLP_STEPS)


def _mlp_more(memory: Memory, _old: Facts, new: Facts) -> Memory:
    assert isinstance(memory, MLPMemory)
    memory.learn(new.keys, new.codes, new.places, steps=MLP_STEPS)
    return memory


def _attention(facts: Facts) -> Memory:
    memory = AttentionMemory(facts.keys.shape[1], facts.codes.shape[1], _scale(len(facts.keys), facts.keys.shape[1]))
    memory.insert([str(place) for place in range(len(facts.keys))], facts.keys, facts.values)
    return memory


def _attention_more(memory: Memory, old: Facts, new: Facts) -> Memory:
    assert isinstance(memory, AttentionMemory)
    memory.insert([str(len(old.keys) + place) for place in range(len(new.keys))], new.keys, new.values)
    memory.scale = _scale(len(memory), new.keys.shape[1])
    return memory


def _scale(facts: int, width: int) -> float:
    return min(1000.0, logit_scale(facts, width))


KINDS = {
    kind.name: kind
    for kind in (
        MemoryKind("Hebbian, raw keys", _hebbian, _hebbian_more, whitened=False),
        MemoryKind("Hebbian, whitened keys", _hebbian, _hebbian_more),
        MemoryKind("ridge", _ridge, _ridge_more, needs_old=True),
        MemoryKind("recursive least squares", _recursive, _recursive_more),
        MemoryKind("linear, trained", _trained, _trained_more),
        MemoryKind("linear, trained, shared answers", _trained, _trained_more, shares=True),
        MemoryKind("MLP", _mlp, _mlp_more),
        MemoryKind("MLP, shared answers", _mlp_shared, _mlp_more, shares=True),
        MemoryKind("attention", _attention, _attention_more),
    )
}
