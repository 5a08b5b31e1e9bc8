"""What one training step minimises. Pool and conversations go through the same weights; gradients reach both.

loss = CE(next token)                      answers weight 1, questions and running text little
     + selection                           -log p(right entry) at every gist layer (the paper only logs it)
     + reconstruction                      each gist names the token it stands for, from its final hidden state
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from incomes_plugin.gist.types import GistShape
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.taps import GistTaps
from incomes_plugin.training import attention
from incomes_plugin.training.data.batches import Batch
from incomes_plugin.training.data.conversation import ZERO

_MAX_ZEROS = 512
"""Positions a step that are taught to choose the zero-gist, drawn at random."""

_MAX_CACHED = 8192
"""Gist entries of earlier steps that serve as distractors, without gradient: pools far larger than a batch."""


class SelectionParameters(nn.Module):
    """The trainable part of the edit adapter: zero-gist keys and per-head query and value maps (identity at first)."""

    def __init__(self, shape: GistShape, num_heads: int) -> None:
        super().__init__()
        layers, kv_heads, dim = len(shape.layers), shape.num_kv_heads, shape.head_dim
        self.zero_keys = nn.Parameter(torch.randn(layers, kv_heads, dim) * 0.5)
        self.query_map = nn.Parameter(torch.eye(dim).expand(layers, num_heads, dim, dim).clone())
        self.value_map = nn.Parameter(torch.eye(dim).expand(layers, kv_heads, dim, dim).clone())


@dataclass(frozen=True)
class Losses:
    """Scalars of one step; `total` carries the gradient."""

    total: torch.Tensor
    answer: float
    selection: float
    reconstruction: float
    text: float
    selection_accuracy: float
    answer_accuracy: float


class EditTrainer(nn.Module):
    """Model plus selection parameters as one trainable module.

    Args:
        model: a Llama-family causal LM.
        adapter: shape, gist tokens and scale rule; its tensors are replaced by trainable ones.
    """

    def __init__(self, model: PreTrainedModel, adapter: EditAdapter) -> None:
        super().__init__()
        model.set_attn_implementation(attention.register())
        self.model = model
        self.adapter = adapter
        self.selection = SelectionParameters(adapter.shape, model.config.num_attention_heads)
        self._taps = GistTaps(model, adapter.shape.layers, adapter.shape.head_dim)
        self._cached = [torch.empty(0, adapter.shape.num_kv_heads, adapter.shape.head_dim)] * len(adapter.shape.layers)

    def forward(self, batch: Batch, forced: float = 0.0) -> Losses:
        """Losses of one batch; `forced` is the share of answer positions that read the right entry in any case."""
        keys, values, reconstruction, edit_text = self._edits(batch)
        reader = _PoolReader(self.selection, self.adapter, keys, values, batch, forced, self._cached)
        self._taps.reader = reader
        hidden = self.model.model(input_ids=batch.ids).last_hidden_state
        self._taps.reader = None
        used = _thin(batch.weight[:, :-1])
        weight = batch.weight[:, :-1][used]
        logits = self.model.lm_head(hidden[:, :-1][used]).float()
        labels = batch.ids[:, 1:][used]
        ce = F.cross_entropy(logits, labels, reduction="none")
        from_pool = (batch.target[:, :-1][used] >= 0) & (weight == 1)
        text = (ce * weight)[weight < 1].sum() / max(1, int((weight < 1).sum()))
        answer = ce[weight == 1].mean()
        selection = reader.loss()
        self._cached = [torch.cat([k.detach(), c])[:_MAX_CACHED] for k, c in zip(keys, self._cached, strict=True)]
        total = answer + selection + reconstruction + text + edit_text
        hits = (logits.argmax(-1) == labels)[from_pool].float().mean()
        return Losses(
            total=total,
            answer=float(ce[from_pool].mean().detach()),
            selection=float(selection.detach()),
            reconstruction=float(reconstruction.detach()),
            text=float(text.detach()),
            selection_accuracy=reader.accuracy(),
            answer_accuracy=float(hits),
        )

    def _edits(self, batch: Batch) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """Gists of the batch's edits (`[n, K, D]` a layer), reconstruction loss, next-token loss on the edit text."""
        self._taps.reader = None
        hidden = self.model.model(input_ids=batch.edit_ids).last_hidden_state
        keys = [k[batch.gist_mask] for k in self._taps.keys]
        values = [
            torch.einsum("nkd,kde->nke", v[batch.gist_mask], self.selection.value_map[layer].to(v.dtype))
            for layer, v in enumerate(self._taps.values)
        ]
        reconstruction = F.cross_entropy(self.model.lm_head(hidden[batch.gist_mask]).float(), batch.gist_label)
        used = _thin(batch.edit_weight[:, :-1])
        text = F.cross_entropy(self.model.lm_head(hidden[:, :-1][used]).float(), batch.edit_ids[:, 1:][used])
        return keys, values, reconstruction, 0.1 * text


def _thin(weight: torch.Tensor) -> torch.Tensor:
    """Positions to predict: all with weight 1, one in five of the lighter ones (the vocabulary product is dear)."""
    return (weight == 1) | ((weight > 0) & (torch.rand_like(weight) < 0.2))


class _PoolReader:
    """Selection of one batch: conversations read the entries of their own group; keeps what the loss needs."""

    def __init__(
        self,
        parameters: SelectionParameters,
        adapter: EditAdapter,
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
        batch: Batch,
        forced: float,
        cached: list[torch.Tensor],
    ) -> None:
        self._parameters = parameters
        self._keys = keys
        self._values = values
        self._real = batch.real
        self._target = batch.target[batch.real]
        group = batch.group[:, None].expand_as(batch.real)[batch.real]
        counts = torch.bincount(batch.entry_group, minlength=int(batch.group.max()) + 1)
        scale = torch.tensor([adapter.scale(int(c)) for c in counts]) / math.sqrt(adapter.shape.head_dim)
        self._scale = scale[group]
        self._cached = cached
        entries = len(batch.entry_group)
        self._cached_scale = adapter.scale(entries + len(cached[0])) / adapter.scale(entries)
        self._mask: torch.Tensor | None = None
        if len(counts) > 1:
            allowed = torch.ones(len(group), len(batch.entry_group) + 1, dtype=torch.bool)
            allowed[:, 1:] = group[:, None] == batch.entry_group[None]
            self._mask = torch.zeros_like(allowed, dtype=torch.float32).masked_fill_(~allowed, -1e9)
        answers = (self._target >= 0).nonzero()[:, 0]
        self._forced = answers[torch.rand(len(answers)) < forced]
        unknown = (self._target == ZERO) & (batch.weight[batch.real] == 1)
        zeros = (self._target == ZERO).logical_and(~unknown).nonzero()[:, 0]
        zeros = zeros[torch.randperm(len(zeros))[:_MAX_ZEROS]]
        self._parts = [len(answers), int(unknown.sum()), len(zeros)]
        self._supervised = torch.cat([answers, unknown.nonzero()[:, 0], zeros])
        self._entry = torch.where(self._target == ZERO, 0, self._target + 1)[self._supervised]
        self._terms: list[tuple[torch.Tensor, ...]] = []
        self._hits: list[float] = []

    def __call__(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """Addition `[B, T, H, D]` to the self-attention output of gist layer `layer`."""
        flat = query[self._real]
        flat = torch.einsum("qhd,hde->qhe", flat, self._parameters.query_map[layer].to(flat.dtype))
        flat = (flat * self._scale[:, None, None].to(flat.dtype)).transpose(0, 1)
        heads_per_kv = flat.shape[0] // self._keys[layer].shape[1]
        zero = self._parameters.zero_keys[layer].to(flat.dtype)
        keys = torch.cat([zero[None], self._keys[layer]]).transpose(0, 1).repeat_interleave(heads_per_kv, dim=0)
        self._record(self._logits(layer, flat[:, self._supervised], keys))
        values = torch.cat([torch.zeros_like(zero)[None], self._values[layer]])
        values = values.transpose(0, 1).repeat_interleave(heads_per_kv, dim=0)
        mask = None if self._mask is None else self._mask.to(flat.dtype)
        out = F.scaled_dot_product_attention(flat[None], keys[None], values[None], attn_mask=mask, scale=1.0)[0]
        right = values[:, self._target[self._forced] + 1]
        out = out.index_copy(1, self._forced, right.to(out.dtype))
        added = torch.zeros_like(query)
        added[self._real] = out.transpose(0, 1).to(added.dtype)
        return added

    def _logits(self, layer: int, query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Logits of the supervised rows; in one large pool also against the gists of earlier steps, without gradient.

        Args:
            query: `[H, S, D]`, scaled for the batch's pool.
            keys: `[H, n + 1, D]`.
        """
        logits = query @ keys.transpose(1, 2)
        if self._mask is not None or not len(self._cached[layer]):
            return logits
        cached = self._cached[layer].transpose(0, 1).to(query.dtype)
        far = query @ cached.repeat_interleave(len(query) // len(cached), dim=0).transpose(1, 2)
        return torch.cat([logits, far], dim=-1) * self._cached_scale

    def _record(self, logits: torch.Tensor) -> None:
        """Log weights of the right entries from the supervised rows' logits `[H, S, n + 1]`."""
        logits = logits.float()
        if self._mask is not None:
            logits = logits + self._mask[self._supervised]
        picked = logits.gather(-1, self._entry.expand(logits.shape[0], -1)[..., None])[..., 0] - logits.logsumexp(-1)
        self._terms.append(picked.split(self._parts, dim=1))
        with torch.no_grad():
            best = logits[:, : self._parts[0]].argmax(-1)
            self._hits.append(float((best == self._entry[: self._parts[0]]).float().mean()))

    def loss(self) -> torch.Tensor:
        """Mean negative log weight of the right entry: answers from the pool, answers from none, half of all else."""
        weights = (1.0, 1.0, 0.5)
        parts = [-w * p.mean() for terms in self._terms for w, p in zip(weights, terms, strict=True) if p.numel()]
        return torch.stack(parts).sum() / len(self._terms)

    def accuracy(self) -> float:
        """Share of answer positions and heads whose largest weight is on the right entry, last gist layer."""
        return self._hits[-1]
