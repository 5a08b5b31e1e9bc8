"""The edit-capable model on Hugging Face transformers: captures and reads gists. The engine is tested against it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from incomes_plugin.gist.types import Gist
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.rotary import rotate
from incomes_plugin.model.taps import GistTaps
from incomes_plugin.selection.reference import select
from incomes_plugin.selection.routing import Picks, Router, Routes, mass, pick, read


@dataclass(frozen=True)
class ReferencePool:
    """Gists of one snapshot, oldest edit first.

    Attributes:
        keys, values: `[L', n, K, D]`.
        entries: `[N, Gmax]` int64, entries of each edit, padded with -1.
    """

    keys: torch.Tensor
    values: torch.Tensor
    entries: torch.Tensor = field(default_factory=lambda: torch.empty(0, 1, dtype=torch.long))

    @classmethod
    def of(cls, gists: list[Gist]) -> ReferencePool:
        """All gists in one pool."""
        keys, values = (torch.cat([getattr(g, name) for g in gists], dim=1) for name in ("keys", "values"))
        sizes = torch.tensor([g.num_gists for g in gists])
        place = torch.arange(int(sizes.max()))
        first = sizes.cumsum(0) - sizes
        return cls(keys, values, torch.where(place < sizes[:, None], first[:, None] + place, -1))

    @cached_property
    def routes(self) -> Routes:
        """What a router chooses from."""
        edits = torch.arange(len(self.entries))
        owners = edits[:, None].expand_as(self.entries)[self.entries >= 0]
        return Routes(self.keys[0].flatten(-2), owners, edits)


class EditableModel:
    """A Hugging Face causal LM with its edit adapter.

    Args:
        model: Llama-family decoder in eval mode.
        adapter: the adapter that belongs to it.

    Attributes:
        picks: what the tokens of the last `logits` call picked; None without a router.
    """

    def __init__(self, model: PreTrainedModel, adapter: EditAdapter) -> None:
        self.model = model
        self.adapter = adapter
        self.picks: Picks | None = None
        self._masses: list[tuple[Picks, torch.Tensor]] | None = None
        self._taps = GistTaps(model, adapter.shape.layers, adapter.shape.head_dim)

    @classmethod
    def load(cls, model_dir: Path, dtype: torch.dtype = torch.float32) -> EditableModel:
        """Load checkpoint and adapter from one folder."""
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype)
        return cls(model.eval(), EditAdapter.load(model_dir))

    @torch.inference_mode()
    def capture(self, text_ids: list[int], *, edit_id: str = "edit", version: int = 1) -> Gist:
        """The gist of one edit text (token ids without BOS and gist tokens)."""
        return replace(self.capture_all([text_ids])[0], edit_id=edit_id, version=version)

    @torch.inference_mode()
    def capture_all(self, texts: Sequence[list[int]]) -> list[Gist]:
        """The gists of several edit texts, in one forward pass; their ids and versions are placeholders."""
        rows = [self.adapter.capture_ids(text) for text in texts]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long, device=self.model.device)
        for row, own in zip(ids, rows, strict=True):
            row[: len(own)] = torch.tensor(own)
        self._taps.reader = None
        self.model.base_model(input_ids=ids)
        keys, values = torch.stack(self._taps.keys), torch.stack(self._taps.values)
        return [self._gist(keys[:, i], values[:, i], len(row), len(texts[i])) for i, row in enumerate(rows)]

    def _gist(self, keys: torch.Tensor, values: torch.Tensor, length: int, num_text_tokens: int) -> Gist:
        """The gist at the end of a capture prompt of `length` tokens, from its `[L', T, K, D]`."""
        place = slice(length - self.adapter.num_gists(num_text_tokens), length)
        gist = Gist(
            "edit", 1, _map(keys[:, place], self.adapter.key_map), _map(values[:, place], self.adapter.value_map)
        )
        return gist if self.adapter.keep is None else self.adapter.keep.thin(gist)

    @torch.inference_mode()
    def queries(self, ids: torch.Tensor) -> torch.Tensor:
        """Un-rotated queries `[B, T, H, D]` of prompts `[B, T]` at the first gist layer, which no edit changes."""
        self._taps.reader = None
        self.model.base_model(input_ids=ids)
        return self._taps.queries[0]

    @torch.inference_mode()
    def logits(self, ids: list[int], pool: ReferencePool | None = None) -> torch.Tensor:
        """Logits `[T, V]` of a prompt whose every token may pick from `pool`."""
        with self.reading(pool):
            return self.model(input_ids=torch.tensor([ids])).logits[0]

    @torch.inference_mode()
    def _next_logits(self, ids: list[int], pool: ReferencePool | None) -> torch.Tensor:
        """Logits `[V]` of what follows; a vocabulary of 50,000 costs more than the body of a small model."""
        with self.reading(pool):
            return self.model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1]

    @contextmanager
    def reading(self, pool: ReferencePool | None) -> Iterator[None]:
        """Inside, every token of a forward pass of the model may pick from `pool`."""
        self._taps.reader = None if pool is None else lambda layer, query: self._read(pool, layer, query)
        try:
            yield
        finally:
            self._taps.reader = None

    def generate(self, ids: list[int], pool: ReferencePool | None, *, max_tokens: int, stop_id: int) -> list[int]:
        """Greedy continuation without the stop token; recomputes the prompt each step."""
        answer: list[int] = []
        while len(answer) < max_tokens:
            token = int(self._next_logits(ids + answer, pool).argmax())
            if token == stop_id:
                break
            answer.append(token)
        return answer

    def _read(self, pool: ReferencePool, layer: int, query: torch.Tensor) -> torch.Tensor:
        adapter = self.adapter
        if adapter.rotary_query:
            query = rotate(self.model, query)
        flat = query.flatten(0, 1)  # every token for itself
        mapped = _map(flat[None], None if adapter.query_map is None else adapter.query_map[layer : layer + 1])[0]
        if adapter.router is not None:
            return self._read_picked(pool, adapter.router, layer, flat, mapped).view_as(query)
        zero_key = adapter.zero_keys[layer].to(query.dtype)
        scale = adapter.scale(pool.keys.shape[1])
        return select(mapped, zero_key, pool.keys[layer], pool.values[layer], scale)[0].view_as(query)

    def _read_picked(
        self, pool: ReferencePool, router: Router, layer: int, query: torch.Tensor, mapped: torch.Tensor
    ) -> torch.Tensor:
        if not len(pool.entries):
            return torch.zeros_like(mapped)
        if layer == 0:
            self.picks = pick(router, query, pool.routes)
        assert self.picks is not None
        entries = pool.entries[self.picks.edits]
        factor = self.adapter.scale(0) / math.sqrt(mapped.shape[-1])  # inside an edit N plays no part
        keys, values = pool.keys[layer][entries], pool.values[layer][entries]
        real = (entries >= 0) & (self.picks.weights > 0)[..., None]
        zero = self.adapter.zero_keys[layer]
        added, log_weights = read(mapped * factor, zero, keys, values, real, self.picks.bias)
        if self._masses is not None:
            self._masses.append((self.picks, mass(log_weights, entries.shape[1])))
        return added

    @contextmanager
    def tracing(self) -> Iterator[list[tuple[Picks, torch.Tensor]]]:
        """Inside, every routed read appends its picks and their weights `[T, k]`, averaged over heads."""
        masses: list[tuple[Picks, torch.Tensor]] = []
        self._masses = masses
        try:
            yield masses
        finally:
            self._masses = None


def _map(heads: torch.Tensor, maps: torch.Tensor | None) -> torch.Tensor:
    """Apply per-head maps `[L', H, D, D]` to `[L', T, H, D]`."""
    return heads if maps is None else torch.einsum("lthd,lhde->lthe", heads.float(), maps).to(heads.dtype)
