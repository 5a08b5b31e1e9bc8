"""The slow encoder: gist keys under a moving average of the weights, so that those of earlier steps stay comparable.

Entries of earlier steps serve as distractors. If right entries came from the newest weights and distractors from older
ones, the cheapest way to tell them apart would be to move the whole space a little at every step, and that is what
training learned (docs/experiments.md). Here right entries and distractors alike come from the same slowly moving
weights (momentum contrast, arXiv 1911.05722).
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from transformers import PreTrainedModel

MOMENTUM = 0.98
"""Share of the old weights that a step keeps: a memory of some 50 steps; the cache holds the entries of about 15."""


class SlowEncoder(nn.Module):
    """Decoder up to the first gist layer; never trained by gradient.

    Args:
        model: causal LM whose average this is.
        first_layer: index of the first gist layer.
    """

    def __init__(self, model: PreTrainedModel, first_layer: int) -> None:
        super().__init__()
        config = deepcopy(model.config)
        config.num_hidden_layers = first_layer + 1
        self.decoder = type(model.model)(config)
        self.requires_grad_(False)
        self._keys = torch.empty(0)
        parts = dict(self.decoder.layers[first_layer].self_attn.named_children())
        (parts.get("k_norm") or parts["k_proj"]).register_forward_hook(self._keep)
        self.follow(model, 0.0)

    def _keep(self, _module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        self._keys = output

    @torch.no_grad()
    def follow(self, model: PreTrainedModel, momentum: float = MOMENTUM) -> None:
        """Move towards the present weights."""
        present = dict(model.model.named_parameters())
        for name, parameter in self.decoder.named_parameters():
            parameter.lerp_(present[name], 1 - momentum)

    @torch.no_grad()
    def keys(self, edit_ids: torch.Tensor, gist_mask: torch.Tensor) -> torch.Tensor:
        """Keys `[n, K * D]` float32 of the entries of capture prompts `[E, Le]`, numbered as in the batch."""
        self.decoder(input_ids=edit_ids)
        return self._keys.reshape(*gist_mask.shape, -1)[gist_mask].float()
