"""Tensors of a file with large matrices in 8 bits, one scale for each row: a quarter of the bytes of float32.

in: float32 tensors by name; out: the tensors of the file, in which a matrix `NAME` in int8 has `NAME.row_scale` beside
it; and back.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

_LARGE = 4096
"""Numbers from which a matrix is kept in 8 bits. Measured: docs/experiments.md."""

_SCALE = ".row_scale"


def packed(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors as a file holds them."""
    return {key: part for name, tensor in tensors.items() for key, part in _packed(name, tensor).items()}


def _packed(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    tensor = tensor.detach().float().cpu().contiguous()
    if tensor.dim() < 2 or tensor.numel() < _LARGE:
        return {name: tensor}
    scale = tensor.abs().amax(-1, keepdim=True) / 127
    rounded = (tensor / scale.clamp_min(torch.finfo(torch.float32).tiny)).round()
    return {name: rounded.to(torch.int8), f"{name}{_SCALE}": scale}


def unpacked(found: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a file in float32.

    Raises:
        KeyError: a scale is missing.
        ValueError: a scale belongs to nothing.
    """
    rounded = {name for name, tensor in found.items() if tensor.dtype == torch.int8}
    scales = {name for name in found if name.endswith(_SCALE)}
    if unknown := scales - {f"{name}{_SCALE}" for name in rounded}:
        raise ValueError(f"unknown tensors {sorted(unknown)}")
    return {
        name: found[name].float() * found[f"{name}{_SCALE}"] if name in rounded else found[name].float()
        for name in found
        if name not in scales
    }
