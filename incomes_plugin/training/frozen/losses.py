"""What an edit adapter on a frozen base learns: gist-token embeddings, the router, A_q, A_k and A_v of gist layers.

loss = CE(answer tokens that an edit holds)        gradients pass through the base and stop at the adapter
     + selection                                   routing and pointer losses of `training/selection.py`
     + rebuild * CE(each gist names its token)     by the base's own output embedding

No loss touches answers that no edit holds: such tokens are routed to the zero-gist and read nothing: the base answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
from incomes_plugin.training.selection import PoolReader, RouteCache, SelectionParameters

Routes = Callable[[torch.Tensor], torch.Tensor]

_MOMENTUM = 0.99
"""Of the slow copies, as in `training/slow.py`."""


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
        self.slow_key = nn.Parameter(self.selection.route_key.detach().clone(), requires_grad=False)
        self._rebuild = rebuild
        self._taps = GistTaps(model, shape.layers, shape.head_dim)
        self._cache = RouteCache(shape.num_kv_heads * shape.head_dim)
        slots = torch.full((max(adapter.gist_token_ids) + 1,), -1)
        slots[list(adapter.gist_token_ids)] = torch.arange(shape.max_gists)
        self.register_buffer("_slots", slots, persistent=False)

    def trained(self) -> list[nn.Parameter]:
        """What the optimizer gets."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(self, batch: Batch, forced: float = 0.0) -> Losses:
        """Losses of one batch; `forced` is the share of answer positions that read the right entry in any case."""
        base = self._base[0].to(batch.ids.device)  # type: ignore[arg-type]
        slow = self._slow_routes(base, batch)
        keys, values, routes, reconstruction = self._edits(base, batch)
        scale = self.adapter.scale(0) / math.sqrt(self.adapter.shape.head_dim)
        reader = PoolReader(self.selection, scale, keys, values, routes, slow, batch, forced, self._cache)
        self._taps.reader = reader
        hidden = base.model(input_ids=batch.ids).last_hidden_state
        self._taps.reader = None
        self._cache.put(slow, batch.edit_key)
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
        self.slow_rows.lerp_(self.gist_rows, 1 - _MOMENTUM)
        self.slow_key.lerp_(self.selection.route_key, 1 - _MOMENTUM)

    def _edits(
        self, base: PreTrainedModel, batch: Batch
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """Keys and values (`[n, K, D]` a layer, maps applied), routes `[E, R]`, reconstruction loss."""
        hidden = self._capture(base, batch, self.gist_rows)
        keys = [self._mapped(k[batch.gist_mask], self.key_map[i]) for i, k in enumerate(self._taps.keys)]
        values = [
            self._mapped(v[batch.gist_mask], self.selection.value_map[i]) for i, v in enumerate(self._taps.values)
        ]
        reconstruction = F.cross_entropy(base.lm_head(hidden[batch.gist_mask]).float(), batch.gist_label)
        return keys, values, self._routes(batch, self.selection.router().routes), reconstruction

    @torch.no_grad()
    def _slow_routes(self, base: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Routes `[E, R]` by the slow copies."""
        self._capture(base, batch, self.slow_rows)
        return self._routes(batch, lambda keys: F.normalize(keys.flatten(-2).float() @ self.slow_key, dim=-1))

    def _routes(self, batch: Batch, routes: Routes) -> torch.Tensor:
        key = self._taps.keys[0][torch.arange(len(batch.route_at), device=batch.route_at.device), batch.route_at]
        with torch.autocast(key.device.type, enabled=False):
            return routes(self._mapped(key.float(), self.key_map[0]))

    def _capture(self, base: PreTrainedModel, batch: Batch, rows: torch.Tensor) -> torch.Tensor:
        """Final hidden states of the capture prompts with `rows` as the gist tokens' embeddings."""
        self._taps.reader = None
        known = batch.edit_ids.clamp_max(len(self._slots) - 1)
        slots = torch.where(batch.edit_ids < len(self._slots), self._slots[known], -1)
        text = base.get_input_embeddings()(batch.edit_ids.masked_fill(slots >= 0, 0))
        embedded = torch.where((slots >= 0)[..., None], rows[slots.clamp_min(0)].to(text.dtype), text)
        return base.model(inputs_embeds=embedded).last_hidden_state

    @staticmethod
    def _mapped(heads: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """`[n, K, D]` through `[K, D, D]`."""
        return torch.einsum("nkd,kde->nke", heads, maps.to(heads.dtype))


def _first_rows(model: PreTrainedModel, count: int) -> torch.Tensor:
    """Starting embeddings `[G, E]`: normal, with the mean and the spread of the base's own."""
    weight = cast(torch.Tensor, model.get_input_embeddings().weight).detach().float()
    return weight.mean(dim=0) + weight.std(dim=0) * torch.randn(count, weight.shape[1])
