"""A dictionary in every kind of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from incomes_plugin.facts.check.dictionary import Entry
from incomes_plugin.facts.check.keys import Asker
from incomes_plugin.facts.check.outcome import Outcome
from incomes_plugin.facts.memories import decide, threshold_at, unit_codes
from incomes_plugin.facts.memories.kinds import KINDS, Facts, Kind, Memory

FALSE_FIRES = 0.01
"""Share of unrelated prompts that the threshold may let through; read off from one half of them, told of the other."""

LATER = 0.2
"""Share of the facts that come later, for retention."""


@dataclass(frozen=True)
class Questions:
    """Everything that is asked: stored wordings, other wordings, what no fact answers, unrelated prompts."""

    stored: Sequence[str]
    rephrased: Sequence[str]
    foreign: Sequence[str]
    unrelated: Sequence[str]


@dataclass(frozen=True)
class Keys:
    """The same as keys `[B, E]`."""

    stored: torch.Tensor
    rephrased: torch.Tensor
    foreign: torch.Tensor
    unrelated: torch.Tensor

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Keys:
        """All of them changed."""
        return Keys(*(change(part) for part in (self.stored, self.rephrased, self.foreign, self.unrelated)))


def keys_of(asker: Asker, questions: Questions) -> Keys:
    """What the model makes of all questions, not whitened."""
    parts = (questions.stored, questions.rephrased, questions.foreign, questions.unrelated)
    return Keys(*(asker.raw(part) for part in parts))


def check_memories(asker: Asker, entries: Sequence[Entry], raw: Keys, value_width: int) -> list[Outcome]:
    """One row a kind of memory.

    Args:
        raw: see `keys_of`.
        value_width: U, a multiple of 8.
    """
    plain, whitened = raw.mapped(partial(F.normalize, dim=-1)), raw.mapped(asker.whitening)
    return [_outcome(kind, entries, whitened if kind.whitened else plain, value_width) for kind in KINDS.values()]


def _outcome(kind: Kind, entries: Sequence[Entry], keys: Keys, value_width: int) -> Outcome:
    facts = _facts(kind, entries, keys.stored, value_width)
    old = round((1 - LATER) * len(entries))
    first, later = facts.part(slice(old)), facts.part(slice(old, None))
    memory = kind.write(first)
    before = _share(_best(memory, first.keys, first) == first.places)
    memory = kind.add(memory, first, later)
    after, new = (_share(_best(memory, part.keys, facts) == part.places) for part in (first, later))
    memory = kind.write(facts)
    calibration, held_out = keys.unrelated[::2], keys.unrelated[1::2]
    threshold = threshold_at(decide(memory(calibration), facts.codes).scores, FALSE_FIRES)
    found = _best(memory, facts.keys, facts, threshold)
    return Outcome(
        name=kind.name,
        asked=len(entries),
        recall=_share(found == facts.places),
        wrong=_share((found != facts.places) & (found >= 0)),
        abstained=_share(found < 0),
        rephrased=_share(_best(memory, keys.rephrased, facts, threshold) == facts.places),
        foreign=_share(_best(memory, keys.foreign, facts, threshold) >= 0),
        fires=_share(_best(memory, held_out, facts, threshold) >= 0),
        old_before=before,
        old_after=after,
        new_after=new,
        num_bytes=memory.num_bytes,
    )


def _facts(kind: Kind, entries: Sequence[Entry], keys: torch.Tensor, value_width: int) -> Facts:
    """A code for each fact, or one for each answer."""
    if not kind.shares:
        ids = [f"{entry.subject}\t{entry.relation}" for entry in entries]
        return Facts(keys, unit_codes(ids, value_width), torch.arange(len(ids)))
    answers = list(dict.fromkeys(entry.answer for entry in entries))
    places = torch.tensor([answers.index(entry.answer) for entry in entries])
    return Facts(keys, unit_codes(answers, value_width), places)


def _best(memory: Memory, keys: torch.Tensor, facts: Facts, threshold: float = -torch.inf) -> torch.Tensor:
    return decide(memory(keys), facts.codes, threshold=threshold).best


def _share(hits: torch.Tensor) -> float:
    return float(hits.float().mean()) if len(hits) else 0.0
