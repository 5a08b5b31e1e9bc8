"""The synthetic task: a subject and a relation at random places among noise; the answer to predict at the end.

tokens    [S subjects | R relations | S + R noise tokens | end]
answers   A_r = the D answers of relation r, disjoint; a*(s, r) one of them at random: S R facts
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

LENGTH = 32
"""Tokens of a sequence, the end included."""


@dataclass(frozen=True)
class Task:
    """Facts and how they are asked.

    Args:
        subjects, relations: S and R.
        choices: D, answers of a relation.
        seed: draws the facts.
    """

    subjects: int
    relations: int
    choices: int
    seed: int = 0

    @property
    def facts(self) -> int:
        """S R."""
        return self.subjects * self.relations

    @property
    def tokens(self) -> int:
        """Size of the input vocabulary."""
        return 2 * (self.subjects + self.relations) + 1

    @property
    def answers(self) -> int:
        """R D, answers there are."""
        return self.relations * self.choices

    @cached_property
    def answer_of(self) -> torch.Tensor:
        """`[S, R]` int64."""
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randint(self.choices, (self.subjects, self.relations), generator=generator)
        return chosen + self.choices * torch.arange(self.relations)

    def ask(self, facts: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Sequences `[B, 32]` and answers `[B]` of facts `[B]`, numbered s R + r; noise and places drawn anew."""
        subject, relation = facts // self.relations, facts % self.relations
        first_noise = self.subjects + self.relations
        noise = torch.randint(first_noise, (len(facts), LENGTH), generator=generator) + first_noise
        places = torch.rand(len(facts), LENGTH - 1, generator=generator).argsort(dim=-1)[:, :2]
        noise.scatter_(1, places, torch.stack([subject, self.subjects + relation], dim=-1))
        noise[:, -1] = self.tokens - 1
        return noise, self.answer_of[subject, relation]
