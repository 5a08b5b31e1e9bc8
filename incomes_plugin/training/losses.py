"""What one training step minimises. Pool and conversations go through the same weights; gradients reach both.

loss = CE(next token)                      answers weight 1, questions and running text little
     + selection                           routing and pointer losses of `selection.py` (the paper only logs p)
     + reconstruction                      each gist names the token it stands for, from its final hidden state
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.taps import GistTaps
from incomes_plugin.training import attention
from incomes_plugin.training.data.batches import Batch
from incomes_plugin.training.selection import EntryCache, PoolReader, SelectionParameters
from incomes_plugin.training.slow import SlowEncoder


@dataclass(frozen=True)
class Losses:
    """Scalars of one step; `total` carries the gradient."""

    total: torch.Tensor
    answer: float
    selection: float
    reconstruction: float
    text: float
    route_accuracy: float
    pointer_accuracy: float
    answer_accuracy: float

    def curves(self) -> dict[str, float]:
        """Columns of the curves."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "total"}

    def describe(self) -> str:
        """A few words for the progress line."""
        return (
            f"loss {self.answer:.2f} route {100 * self.route_accuracy:.0f}% point {100 * self.pointer_accuracy:.0f}% "
            f"answer {100 * self.answer_accuracy:.0f}% rebuild {self.reconstruction:.2f}"
        )


@dataclass(frozen=True)
class Spoken:
    """The predicted positions `[P]` of a batch's conversations.

    Attributes:
        ce: cross-entropy.
        weight: 1 inside answers.
        hits: the most likely token is right.
        from_pool: positions inside answers that an edit gives.
    """

    ce: torch.Tensor
    weight: torch.Tensor
    hits: torch.Tensor
    from_pool: torch.Tensor

    @classmethod
    def of(cls, head: nn.Module, hidden: torch.Tensor, batch: Batch) -> Spoken:
        """From the last hidden states `[B, T, C]` of the conversations, after the norm."""
        used = _thin(batch.weight[:, :-1])
        logits = head(hidden[:, :-1][used]).float()
        labels = batch.ids[:, 1:][used]
        return cls(
            ce=F.cross_entropy(logits, labels, reduction="none"),
            weight=batch.weight[:, :-1][used],
            hits=logits.argmax(-1) == labels,
            from_pool=(batch.target[:, :-1][used] >= 0) & (batch.weight[:, :-1][used] == 1),
        )

    @property
    def answer(self) -> torch.Tensor:
        """Mean over answers."""
        return self.ce[self.weight == 1].mean()

    @property
    def text(self) -> torch.Tensor:
        """Weighted, over all else."""
        light = self.weight < 1
        return (self.ce * self.weight)[light].sum() / max(1, int(light.sum()))


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
        self.slow = SlowEncoder(model, adapter.shape.layers[0])
        self._cache = EntryCache(adapter.shape.num_kv_heads * adapter.shape.head_dim)

    def forward(self, batch: Batch, forced: float = 0.0) -> Losses:
        """Losses of one batch; `forced` is the share of answer positions that read the right entry in any case."""
        keys, values, reconstruction, edit_text = self._edits(batch)
        scale = self.adapter.scale(0) / math.sqrt(self.adapter.shape.head_dim)
        slow = self.slow.keys(batch.edit_ids, batch.gist_mask)
        reader = PoolReader(self.selection, scale, keys, values, slow, batch, forced, self._cache)
        self._taps.reader = reader
        spoken = self._spoken(batch)
        self._taps.reader = None
        selection = reader.loss()
        self._cache.put(slow, batch.edit_key.repeat_interleave(batch.first_entry.diff()))
        total = spoken.answer + selection + reconstruction + spoken.text + edit_text
        return Losses(
            total=total,
            answer=float(spoken.ce[spoken.from_pool].mean().detach()),
            selection=float(selection.detach()),
            reconstruction=float(reconstruction.detach()),
            text=float(spoken.text.detach()),
            route_accuracy=reader.route_accuracy,
            pointer_accuracy=reader.pointer_accuracy,
            answer_accuracy=float(spoken.hits[spoken.from_pool].float().mean()),
        )

    def _spoken(self, batch: Batch) -> Spoken:
        """Next-token losses of the conversations, with whatever reader is set."""
        return Spoken.of(self.model.lm_head, self.model.model(input_ids=batch.ids).last_hidden_state, batch)

    def follow(self) -> None:
        """After an optimiser step: the slow encoder moves a little towards the new weights."""
        self.slow.follow(self.model)

    def _edits(self, batch: Batch) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """Keys and values (`[n, K, D]` a layer), reconstruction loss, next-token loss on the edit text."""
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
