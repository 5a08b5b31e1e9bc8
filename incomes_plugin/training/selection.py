"""Routed selection as training sees it: the trainable tensors, what each position picks and reads, and its losses.

At the first gist layer every supervised position chooses among the zero-gist, the batch's edits and thousands of
entries of earlier steps; positions inside answers then choose among the entries of the best edits of their pool at
every gist layer, and a pointer loss says which is right: an entry of the right edit, or the zero-gist. Called by the
hooks of `model/taps.py` in the forward pass of `losses.py`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from incomes_plugin.gist.types import GistShape
from incomes_plugin.selection.routing import Router, about_the_same, bias, read
from incomes_plugin.training.data.batches import Batch
from incomes_plugin.training.data.conversation import ZERO

MAX_CACHED = 49_152
"""Entries of edits of earlier steps that serve as distractors, without gradient: some 3,000 edits."""

_STANDS_FOR = 3.0
"""Entries that each cached one stands for, so that the router meets the crowd of some 10,000 edits."""

_MAX_ZEROS = 256
"""Positions a step that are taught to choose the zero-gist, drawn at random."""

_PICKS = 4
"""Edits that a position inside an answer chooses among: the right one and the best others."""

RECENCY = 1.0
"""Preference, in logits, for the later of two picks about the same. Fixed: trained, it hardly moved, since few answers
hang on it."""

_GAIN = 0.15
"""Factor of the routing logits at the start; it is trained on."""


class SelectionParameters(nn.Module):
    """The trainable part of the edit adapter: zero-gist keys, per-head query and value maps, and the router."""

    def __init__(self, shape: GistShape, num_heads: int) -> None:
        super().__init__()
        layers, kv_heads, dim = len(shape.layers), shape.num_kv_heads, shape.head_dim
        self.zero_keys = nn.Parameter(torch.randn(layers, kv_heads, dim) * 0.5)
        self.query_map = nn.Parameter(torch.eye(dim).expand(layers, num_heads, dim, dim).clone())
        self.value_map = nn.Parameter(torch.eye(dim).expand(layers, kv_heads, dim, dim).clone())
        self.route_query = nn.Parameter(sum_of_heads(self.query_map[0].detach(), kv_heads))
        self.route_zero = nn.Parameter(self.zero_keys[0].detach().flatten().clone())
        self.route_bias = nn.Parameter(torch.zeros(()))
        self.log_gain = nn.Parameter(torch.tensor(math.log(_GAIN)))

    def router(self) -> Router:
        """The router with its present tensors."""
        tensors = self.route_query, self.route_zero, self.route_bias, self.log_gain.exp()
        return Router(*tensors, recency=RECENCY)


def sum_of_heads(query_map: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """A_q `[H * D, K * D]` whose logit is the sum of the heads' own, from their maps `[H, D, D]`."""
    heads, dim, _ = query_map.shape
    group = heads // kv_heads
    columns = torch.zeros(heads, dim, kv_heads, dim)
    for head in range(heads):
        columns[head, :, head // group] = query_map[head]
    return columns.view(heads * dim, kv_heads * dim)


class EntryCache:
    """First in, first out: keys of earlier edits' entries and what those edits are about."""

    def __init__(self, dim: int) -> None:
        self.keys = torch.empty(0, dim)
        self.about = torch.empty(0, dtype=torch.long)

    def put(self, keys: torch.Tensor, about: torch.Tensor) -> None:
        """Remember a step's slow keys `[n, R]` and, for each of them, what its edit is about `[n]`."""
        self.move(keys.device)
        self.keys = torch.cat([keys, self.keys.to(keys)])[:MAX_CACHED]
        self.about = torch.cat([about, self.about])[:MAX_CACHED]

    def move(self, device: torch.device) -> None:
        """Hold the entries on `device`."""
        self.keys, self.about = self.keys.to(device), self.about.to(device)


class PoolReader:
    """Selection of one batch: conversations pick among the edits of their own group; keeps what the losses need.

    Args:
        keys, values: `[n, K, D]` for each gist layer, value map applied.
        slow: `[n, R]`, keys of the same entries at the first gist layer by the slow encoder.
        scale: factor of the read logits, 1 / sqrt(D) included.
        forced: share of answer positions that read the right edit in any case.
    """

    def __init__(
        self,
        parameters: SelectionParameters,
        scale: float,
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
        slow: torch.Tensor,
        batch: Batch,
        forced: float,
        cache: EntryCache,
    ) -> None:
        self._parameters, self._router, self._scale = parameters, parameters.router(), scale
        cache.move(slow.device)
        self._slow, self._cache, self._batch = slow, cache, batch
        self._keys = keys[0].flatten(1).float()
        sizes = batch.first_entry.diff()
        self._edit_of = torch.repeat_interleave(torch.arange(len(sizes), device=slow.device), sizes)
        self._shape = (len(sizes), int(sizes.max()))
        place = torch.arange(self._shape[1], device=slow.device)
        entry = batch.first_entry[:-1, None] + place
        self._real = entry < batch.first_entry[1:, None]
        self._entry = torch.where(self._real, entry, -1)
        self._padded = [
            [F.pad(t, (0, 0, 0, 0, 0, 1))[self._entry].flatten(1) for t in (k, v)]
            for k, v in zip(keys, values, strict=True)
        ]
        self._choose_rows(forced)
        self._picked = torch.empty(0)
        self._there = torch.empty(0)
        self._bias = torch.empty(0)
        self._terms: list[torch.Tensor] = []
        self._routing: list[torch.Tensor] = []
        self.route_accuracy = self.pointer_accuracy = 0.0

    def _choose_rows(self, forced: float) -> None:
        """Supervised rows in the order answers, unanswerable, others; the first two read the pool."""
        batch = self._batch
        target = batch.target[batch.real]
        answers = (target >= 0).nonzero()[:, 0]
        unknown = ((target == ZERO) & (batch.weight[batch.real] == 1)).nonzero()[:, 0]
        others = ((target == ZERO) & (batch.weight[batch.real] != 1)).nonzero()[:, 0]
        others = others[torch.randperm(len(others), device=others.device)[:_MAX_ZEROS]]
        self._parts = [len(answers), len(unknown), len(others)]
        self._rows = torch.cat([answers, unknown, others])
        self._edit = torch.searchsorted(batch.first_entry, target[answers], right=True) - 1
        self._slot = target[answers] - batch.first_entry[self._edit]
        self._forced = torch.rand(len(answers), device=answers.device) < forced
        self._group = batch.group[:, None].expand_as(batch.real)[batch.real][self._rows]

    def __call__(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """Addition `[B, T, H, D]` to the self-attention output of gist layer `layer`."""
        flat = query[self._batch.real]
        if layer == 0:
            self._route(flat[self._rows])
        readers = self._rows[: self._parts[0] + self._parts[1]]
        maps = self._parameters.query_map[layer].to(flat.dtype)
        mapped = torch.einsum("thd,hde->the", flat[readers], maps) * self._scale
        added = torch.zeros_like(query)
        addition = torch.zeros_like(flat).index_copy(0, readers, self._read(layer, mapped).to(flat.dtype))
        added[self._batch.real] = addition
        return added

    def _route(self, query: torch.Tensor) -> None:
        """Routing losses of the supervised rows, and what the reading ones pick."""
        right = self._same_about(self._batch.edit_key[self._edit_of])
        with torch.autocast(query.device.type, enabled=False):
            directions = self._router.directions(query)
            zero = self._router.zero_logits(directions, 0)[:, None]
            near = directions @ self._keys.T
            near = near.masked_fill(self._group[:, None] != self._batch.edit_group[self._edit_of][None], -1e9)
            slow = directions @ self._slow.T
            cached = (directions @ self._cache.keys.T).masked_fill_(self._same_about(self._cache.about), -1e9)
            far = torch.cat([zero, slow], dim=1).logsumexp(dim=1)
            if len(self._cache.about):  # apart, not concatenated: by far the largest tensor of a step
                far = torch.logaddexp(far, cached.logsumexp(dim=1) + math.log(_STANDS_FOR))
            present = torch.cat([zero, near], dim=1).logsumexp(dim=1)
            chosen, chosen_slow = self._chosen(zero, near, right), self._chosen(zero, slow, right)
        losses = (present - chosen + far - chosen_slow).split(self._parts)
        weights = (1.0, 1.0, 0.5)
        self._routing = [w * part.mean() for w, part in zip(weights, losses, strict=True) if len(part)]
        self.route_accuracy = self._accuracy(zero, slow, cached, right)
        self._pick(near)

    def _chosen(self, zero: torch.Tensor, logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Logits `[S]` of the right choice: any entry of the right edit, or the zero-gist."""
        count = self._parts[0]
        edits = logits[:count].masked_fill(~right[:count], -1e9).logsumexp(dim=1)
        return torch.cat([edits, zero[count:, 0]])

    @torch.no_grad()
    def _accuracy(self, zero: torch.Tensor, slow: torch.Tensor, cached: torch.Tensor, right: torch.Tensor) -> float:
        """Share of answer positions at which an entry of the right edit beats everything else."""
        count = self._parts[0]
        best = torch.cat([zero, slow.masked_fill(right, -1e9), cached], dim=1)[:count].amax(dim=1)
        return float((slow[:count].masked_fill(~right[:count], -1e9).amax(dim=1) > best).float().mean())

    def _same_about(self, about: torch.Tensor) -> torch.Tensor:
        """`[S, n]`: entries of edits that say something about what the row asks for; contradictions are among them.

        Args:
            about: `[n]`, what the edit of each entry is about.
        """
        same = F.pad(self._batch.edit_key[:, None] == about[None], (0, 0, 1, 0))
        return same[F.pad(self._edit, (0, sum(self._parts[1:])), value=-1) + 1]

    @torch.no_grad()
    def _pick(self, near: torch.Tensor) -> None:
        """`[S, k]`: the right edit (or the best) and the best others of the row's own pool, for the reading rows."""
        count, readers = self._parts[0], self._parts[0] + self._parts[1]
        edits, best = F.pad(near[:readers], (0, 1), value=-1e9)[:, self._entry].max(dim=2)
        first = edits.argmax(dim=1)
        first[:count] = self._edit
        others = edits.scatter(1, first[:, None], -torch.inf).topk(min(_PICKS, edits.shape[1]) - 1, dim=1)
        self._picked = torch.cat([first[:, None], others.indices], dim=1)
        own = others.values > -1e8
        self._there = F.pad(own, (1, 0), value=True)
        logits, order = edits.gather(1, self._picked).sort(dim=1, descending=True)
        entries = self._entry[self._picked, best.gather(1, self._picked)].gather(1, order)
        there = self._there.gather(1, order)
        alike = about_the_same(logits, self._keys[entries]) & there
        ages = self._picked.gather(1, order)  # the place in the batch is the age
        gained = bias(logits, alike, ages, RECENCY, RECENCY).masked_fill(~there, 0.0)
        self._bias = torch.zeros_like(gained).scatter(1, order, gained)

    def _read(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """Addition `[S, H, D]` for the reading rows; adds the layer's pointer losses."""
        kv_heads = self._parameters.value_map.shape[1]
        size = (*self._picked.shape, self._shape[1], kv_heads, query.shape[-1])
        keys, values = (F.embedding(self._picked, t).view(size) for t in self._padded[layer])
        real = self._real[self._picked] & self._there[..., None]
        zero = self._parameters.zero_keys[layer]
        out, weights = read(query, zero, keys, values, real, self._bias)
        count = self._parts[0]
        right = F.pad(self._slot + 1, (0, len(query) - count))  # the right edit is the first pick
        chosen = weights.gather(2, right[:, None, None].expand(-1, weights.shape[1], 1))[..., 0]
        self._terms += [-part.mean() for part in chosen.split([count, len(query) - count]) if len(part)]
        hits = weights[:count].detach().argmax(dim=2) == right[:count, None]
        self.pointer_accuracy = float(hits.float().mean())
        forced = self._forced.nonzero()[:, 0]
        values_of = values[forced, 0, self._slot[forced]].repeat_interleave(query.shape[1] // kv_heads, dim=1)
        return out.index_copy(0, forced, values_of.to(out.dtype))

    def loss(self) -> torch.Tensor:
        """Half of the routing terms, and the pointer terms averaged over gist layers."""
        pointing = torch.stack(self._terms).sum() / len(self._padded)
        return 0.5 * torch.stack(self._routing).sum() + pointing
