"""The served model's adapter with other rules, random gists of its shape, and random texts.

With a low threshold every request reads as many edits as it may, the dearest case; with a high one it looks and reads
none. Among random gists no edit lies nearer to a question than the others, so all candidates are verified.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from incomes_plugin.gist.spelling import Spelling
from incomes_plugin.gist.types import SPELLED_PER_TOKEN, Gist, GistShape, Packed
from incomes_plugin.model.adapter import EditAdapter

ALWAYS = -1e4
NEVER = 1e4
"""Thresholds of the verifier that every edit passes, and none."""

ORDINARY = range(1_000, 30_000)
"""Token ids of ordinary words in the default base's vocabulary."""


def with_threshold(adapter_dir: Path, into: Path, threshold: float) -> Path:
    """A copy of an adapter whose verifier accepts from `threshold` on, and of whose picks none is another's rival."""
    adapter = EditAdapter.load(adapter_dir)
    changed = replace(adapter.rules, threshold=threshold, rivalry=0.0)
    replace(adapter, rules=changed).save(into)
    return into


def random_gists(shape: GistShape, count: int, tokens: int, prefix: str) -> Iterator[Gist]:
    """`count` gists of `tokens` tokens each, of the size of real ones."""
    generator = torch.Generator().manual_seed(count)

    def packed(*size: int) -> Packed:
        return Packed.of(torch.randn(size, generator=generator))

    for place in range(count):
        parts = packed(tokens, shape.feature_dim), packed(tokens, shape.latent_dim)
        yield Gist(f"edit_{prefix}{place:06d}", 1, *parts, spelling=random_spelling(tokens, generator))


def random_spelling(tokens: int, generator: torch.Generator) -> Spelling:
    """Of ordinary size, of ordinary words, each behind the one before it."""
    count = round(SPELLED_PER_TOKEN * tokens)
    words = torch.randint(ORDINARY.start, ORDINARY.stop, (count,), generator=generator).tolist()
    return Spelling.of((word, row * tokens // count, row - 1) for row, word in enumerate(words))


def prompt(seed: int, tokens: int) -> list[int]:
    """`tokens` random ordinary token ids, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(ORDINARY.start, ORDINARY.stop, (tokens,), generator=generator).tolist()
