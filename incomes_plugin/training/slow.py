"""The slow encoder: routes of edits under a moving average of the weights, so that those of earlier steps stay alike.

Routes of earlier steps serve as distractors. If right routes came from the newest weights and distractors from older
ones, the cheapest way to tell them apart would be to move the whole space a little at every step, and that is what
training learned (docs/experiments.md). Here right routes and distractors alike come from the same slowly moving weights
(momentum contrast, arXiv 1911.05722).
"""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

MOMENTUM = 0.99
"""Share of the old weights that a step keeps: memory of some 100 steps, half of what the cache of routes holds."""


class SlowEncoder(nn.Module):
    """Decoder up to the first gist layer, and the router's key map; never trained by gradient.

    Args:
        model: causal LM whose average this is.
        first_layer: index of the first gist layer.
        route_key: `[K * D, K * D]`, the router's A_k.
    """

    def __init__(self, model: PreTrainedModel, first_layer: int, route_key: torch.Tensor) -> None:
        super().__init__()
        config = deepcopy(model.config)
        config.num_hidden_layers = first_layer + 1
        self.decoder = type(model.model)(config)
        self.route_key = nn.Parameter(route_key.detach().clone())
        self.requires_grad_(False)
        self._keys = torch.empty(0)
        parts = dict(self.decoder.layers[first_layer].self_attn.named_children())
        parts.get("k_norm", parts["k_proj"]).register_forward_hook(self._keep)
        self.follow(model, route_key, 0.0)

    def _keep(self, _module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        self._keys = output

    @torch.no_grad()
    def follow(self, model: PreTrainedModel, route_key: torch.Tensor, momentum: float = MOMENTUM) -> None:
        """Move towards the present weights."""
        present = dict(model.model.named_parameters())
        for name, parameter in self.decoder.named_parameters():
            parameter.lerp_(present[name], 1 - momentum)
        self.route_key.lerp_(route_key, 1 - momentum)

    @torch.no_grad()
    def routes(self, edit_ids: torch.Tensor, route_at: torch.Tensor) -> torch.Tensor:
        """Routes `[E, R]` of capture prompts `[E, Le]` whose route tokens stand at `route_at` `[E]`."""
        self.decoder(input_ids=edit_ids)
        keys = self._keys[torch.arange(len(route_at), device=route_at.device), route_at].flatten(1)
        with torch.autocast(keys.device.type, enabled=False):
            return F.normalize(keys.float() @ self.route_key, dim=-1)
