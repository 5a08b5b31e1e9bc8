"""Start from a smaller edit-capable model: new decoder layers that change nothing yet go below its gist layers.

A layer whose attention and MLP outputs are multiplied by zero weights is the identity, so the grown model computes what
the small one did, and training goes on from there instead of from nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from incomes_plugin.errors import InvalidValue
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.training.losses import EditTrainer
from incomes_plugin.training.selection import sum_of_heads


@torch.no_grad()
def grow(trainer: EditTrainer, folder: Path) -> None:
    """Copy the model in `folder` into `trainer`; layers it lacks become identities just below the gist layers.

    A correction of its router is left behind; `training/crowd.py` fits a new one in the end.

    Raises:
        InvalidValue: widths or the number of gist layers differ.
    """
    small, adapter = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), EditAdapter.load(folder)
    _check(trainer, small.config, adapter)
    model = trainer.model.model
    model.embed_tokens.load_state_dict(small.model.embed_tokens.state_dict())
    model.norm.load_state_dict(small.model.norm.state_dict())
    below = adapter.shape.layers[0]
    added = len(model.layers) - len(small.model.layers)
    for index, layer in enumerate(small.model.layers):
        model.layers[index if index < below else index + added].load_state_dict(layer.state_dict())
    for layer in model.layers[below : below + added]:
        _silence(layer)
    selection = trainer.selection
    selection.zero_keys.copy_(adapter.zero_keys)
    for name in ("query_map", "value_map"):
        maps = getattr(adapter, name)
        if maps is not None:
            getattr(selection, name).copy_(maps)
    if adapter.router is not None:
        selection.route_query.copy_(adapter.router.query)
        selection.route_zero.copy_(adapter.router.zero)
        selection.route_bias.copy_(adapter.router.bias)
        selection.log_gain.copy_(adapter.router.gain.log())
    else:  # dense selection: the heads' own choices, added up
        selection.route_query.copy_(sum_of_heads(selection.query_map[0], adapter.shape.num_kv_heads))
        selection.route_zero.copy_(adapter.zero_keys[0].flatten())
    trainer.slow.follow(trainer.model, 0.0)


def _silence(layer: nn.Module) -> None:
    layer.self_attn.o_proj.weight.zero_()  # type: ignore[union-attr, operator]
    layer.mlp.down_proj.weight.zero_()  # type: ignore[union-attr, operator]


def _check(trainer: EditTrainer, small: PretrainedConfig, adapter: EditAdapter) -> None:
    check_widths(trainer.model.config, small)
    if len(adapter.shape.layers) != len(trainer.adapter.shape.layers):
        raise InvalidValue("cannot grow from this model: the number of gist layers differs", param="grow_from")


def check_widths(wanted: PretrainedConfig, given: PretrainedConfig) -> None:
    """Raise InvalidValue unless layers of a model can be layers of the other."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    different = [name for name in names if getattr(wanted, name) != getattr(given, name)]
    if different:
        raise InvalidValue(f"cannot grow from this model: {', '.join(different)} differ", param="grow_from")
