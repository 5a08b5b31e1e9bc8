"""What an edit adapter on a frozen base learns: gist-token embeddings, the router, A_q, A_k and A_v of gist layers.

loss = CE(answer tokens that an edit holds)        gradients pass through the base and stop at the adapter
     + selection                                   routing and pointer losses of `training/selection.py`
     + rebuild * CE(each gist names its token)     by the base's own output embedding

No loss touches answers that no edit holds: such tokens are routed to the zero-gist and read nothing: the base answers.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.taps import GistTaps
from incomes_plugin.training import attention
from incomes_plugin.training.data.batches import Batch
from incomes_plugin.training.losses import Losses
from incomes_plugin.training.selection import EntryCache, PoolReader, SelectionParameters
from incomes_plugin.training.slow import MOMENTUM


class FrozenTrainer(nn.Module):
    """The adapter's tensors as one trainable module around a base that is no part of it.

    Args:
        model: Llama, Qwen2, Qwen3 or Mistral causal LM; its parameters never change.
        adapter: shape, gist token ids and scale rule; its tensors are replaced by trainable ones.
        rebuild: weight of the reconstruction loss.
    """

    _slots: torch.Tensor

    def __init__(self, model: PreTrainedModel, adapter: EditAdapter, rebuild: float) -> None:
        super().__init__()
        model.set_attn_implementation(attention.register())
        self._base = (model.eval().requires_grad_(False),)  # in a tuple, so that it is no submodule
        self.adapter = adapter
        shape = adapter.shape
        self.selection = SelectionParameters(shape, model.config.num_attention_heads)
        eye = torch.eye(shape.head_dim).expand(len(shape.layers), shape.num_kv_heads, shape.head_dim, shape.head_dim)
        self.key_map = nn.Parameter(eye.clone())
        self.gist_rows = nn.Parameter(_first_rows(model, shape.max_gists))
        self.slow_rows = nn.Parameter(self.gist_rows.detach().clone(), requires_grad=False)
        self.slow_map = nn.Parameter(self.key_map[0].detach().clone(), requires_grad=False)
        self._rebuild = rebuild
        self._taps = GistTaps(model, shape.layers, shape.head_dim)
        self._cache = EntryCache(shape.num_kv_heads * shape.head_dim)
        slots = torch.full((max(adapter.gist_token_ids) + 1,), -1)
        slots[list(adapter.gist_token_ids)] = torch.arange(shape.max_gists)
        self.register_buffer("_slots", slots, persistent=False)

    def trained(self) -> list[nn.Parameter]:
        """What the optimizer gets."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(self, batch: Batch, forced: float = 0.0) -> Losses:
        """Losses of one batch; `forced` is the share of answer positions that read the right entry in any case."""
        base = self._base[0].to(batch.ids.device)  # type: ignore[arg-type]
        slow = self._slow_keys(base, batch)
        keys, values, reconstruction = self._edits(base, batch)
        scale = self.adapter.scale(0) / math.sqrt(self.adapter.shape.head_dim)
        reader = PoolReader(self.selection, scale, keys, values, slow, batch, forced, self._cache)
        self._taps.reader = reader
        hidden = base.model(input_ids=batch.ids).last_hidden_state
        self._taps.reader = None
        self._cache.put(slow, batch.edit_key.repeat_interleave(batch.first_entry.diff()))
        held = batch.target[:, :-1] >= 0
        logits, labels = base.lm_head(hidden[:, :-1][held]).float(), batch.ids[:, 1:][held]
        answer, selection = F.cross_entropy(logits, labels), reader.loss()
        return Losses(
            total=answer + selection + self._rebuild * reconstruction,
            answer=float(answer.detach()),
            selection=float(selection.detach()),
            reconstruction=float(reconstruction.detach()),
            text=0.0,
            route_accuracy=reader.route_accuracy,
            pointer_accuracy=reader.pointer_accuracy,
            answer_accuracy=float((logits.argmax(-1) == labels).float().mean()),
        )

    @torch.no_grad()
    def follow(self) -> None:
        """After an optimiser step: the slow copies move a little towards the new tensors."""
        self.slow_rows.lerp_(self.gist_rows, 1 - MOMENTUM)
        self.slow_map.lerp_(self.key_map[0], 1 - MOMENTUM)

    def _edits(
        self, base: PreTrainedModel, batch: Batch
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        """Keys and values (`[n, K, D]` a layer, maps applied), and the reconstruction loss."""
        hidden = self._capture(base, batch, self.gist_rows)[batch.gist_mask]
        keys, values = (
            [_mapped(t[batch.gist_mask], maps[layer]) for layer, t in enumerate(kept)]
            for kept, maps in ((self._taps.keys, self.key_map), (self._taps.values, self.selection.value_map))
        )
        return keys, values, F.cross_entropy(base.lm_head(hidden).float(), batch.gist_label)

    @torch.no_grad()
    def _slow_keys(self, base: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Keys `[n, K * D]` float32 at the first gist layer by the slow copies."""
        self._capture(base, batch, self.slow_rows)
        return _mapped(self._taps.keys[0][batch.gist_mask], self.slow_map).flatten(1).float()

    def _capture(self, base: PreTrainedModel, batch: Batch, rows: torch.Tensor) -> torch.Tensor:
        """Final hidden states of the capture prompts with `rows` as the gist tokens' embeddings."""
        self._taps.reader = None
        known = batch.edit_ids.clamp_max(len(self._slots) - 1)
        slots = torch.where(batch.edit_ids < len(self._slots), self._slots[known], -1)
        text = base.get_input_embeddings()(batch.edit_ids.masked_fill(slots >= 0, 0))
        embedded = torch.where((slots >= 0)[..., None], rows[slots.clamp_min(0)].to(text.dtype), text)
        return base.model(inputs_embeds=embedded).last_hidden_state


def _mapped(heads: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """`[n, K, D]` through `[K, D, D]`."""
    return torch.einsum("nkd,kde->nke", heads, maps.to(heads.dtype))


def _first_rows(model: PreTrainedModel, count: int) -> torch.Tensor:
    """Starting embeddings `[G, E]`: normal, with the mean and the spread of the base's own."""
    weight = cast(torch.Tensor, model.get_input_embeddings().weight).detach().float()
    return weight.mean(dim=0) + weight.std(dim=0) * torch.randn(count, weight.shape[1])
