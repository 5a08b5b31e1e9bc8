"""A router whose gate opens for a share of the tokens, as a trained one's does, and how often it opened.

Whether a token reads follows from its queries at the first gist layer, which no edit changes: they are the same on
Hugging Face transformers, where they are computed here. Called by `model.py` and `throughput.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from incomes_plugin.gist import Gist
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.taps import GistTaps
from incomes_plugin.selection.routing import Router, Routes, pick

SHARE = 1 / 8
"""Tokens of random prompts that read an edit of ordinary keys."""

LOUD = 1000.0
"""Factor of the first gist layer's keys with which every token reads: the dearest case."""

_ZERO = 100.0
"""Size of the zero-gist's key: far above ordinary entries' (the gate hardly depends on N), below loud ones'."""


def gated_router(queries: torch.Tensor, keys: int) -> Router:
    """A random router, its bias such that `SHARE` of the tokens read among 1,000 edits.

    Args:
        queries: `[T, H, D]`, un-rotated, of the first gist layer.
        keys: K * D.
    """
    width = queries[0].numel()
    looking = torch.randn(width, keys) / width**0.5
    router = Router(looking, _ZERO * torch.randn(keys), torch.tensor(0.0), torch.tensor(1.0))
    best = (router.directions(queries) @ torch.randn(keys, 16_000)).amax(dim=1)
    lead = best - router.zero_logits(router.directions(queries), 0)
    return Router(looking, router.zero, lead.quantile(1 - SHARE), router.gain)


def first_queries(model: PreTrainedModel, layer: int, head_dim: int, prompts: Sequence[list[int]]) -> torch.Tensor:
    """Un-rotated queries `[T, H, D]` of all tokens at decoder layer `layer`."""
    found: list[torch.Tensor] = []

    def keep(_index: int, query: torch.Tensor) -> None:
        found.append(query[0])

    taps = GistTaps(model, [layer], head_dim)
    taps.reader = keep
    with torch.inference_mode():
        for ids in prompts:
            model(input_ids=torch.tensor([ids]))
    taps.reader = None
    return torch.cat(found)


class Gate:
    """The model of the benchmark, asked which tokens read."""

    def __init__(self, folder: Path) -> None:
        self._adapter = EditAdapter.load(folder)
        self.shape = self._adapter.shape
        depth = self.shape.layers[0] + 1
        self._model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, num_hidden_layers=depth
        ).eval()

    def opened(self, gists: Sequence[Gist], texts: Sequence[list[int]]) -> torch.Tensor:
        """For every token of the texts in turn whether it reads, with edits of these gists."""
        assert self._adapter.router is not None
        queries = first_queries(self._model, self.shape.layers[0], self.shape.head_dim, texts)
        return pick(self._adapter.router, queries, _routes(gists)).weights.any(dim=-1)


def _routes(gists: Sequence[Gist]) -> Routes:
    edits = torch.arange(len(gists))
    sizes = torch.tensor([gist.num_gists for gist in gists])
    return Routes(torch.cat([gist.keys[0].flatten(1) for gist in gists]), edits.repeat_interleave(sizes), edits)
