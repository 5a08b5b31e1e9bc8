"""Where the search for a text's vectors begins."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch

from incomes_plugin.lab.verbatim.frozen import FrozenModel


def mean_embeddings(model: FrozenModel, ids: Sequence[int], count: int) -> torch.Tensor:
    """`[count, hidden]`: mean input embedding of each of `count` equal pieces of the text."""
    embedded = model.embed(ids).float().cpu()
    edges = [round(i * len(ids) / count) for i in range(count + 1)]
    pieces = [embedded[low : max(high, low + 1)] for low, high in pairwise(edges)]
    return torch.stack([(piece if len(piece) else embedded[-1:]).mean(0) for piece in pieces])


def random_vectors(model: FrozenModel, name: str, count: int, seed: int = 0) -> torch.Tensor:
    """`[count, hidden]` as far spread as input embeddings; the same for the same name, whatever the batch."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randn(count, model.hidden_size, generator=generator) * model.embedding_std


def nearest(ids: Sequence[int], others: Iterable[Sequence[int]], least: float = 0.5) -> int | None:
    """Index of the text that shares most tokens with `ids`, if that is at least the share `least` of both together."""
    own, best, found = Counter(ids), least, None
    for index, other in enumerate(others):
        counted = Counter(other)
        shared = sum((own & counted).values()) / max(sum((own | counted).values()), 1)
        if shared >= best:
            best, found = shared, index
    return found


def resized(vectors: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
    """`vectors` as the last of as many rows as `fill` has: the last vector is what the first token is read from."""
    count = len(fill)
    return (
        torch.cat([fill[: count - len(vectors)], vectors])[-count:].clone()
        if count > len(vectors)
        else vectors[-count:]
    )
