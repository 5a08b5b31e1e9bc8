"""Undoes the rotary embedding of queries and keys, which is all that the engine's attention has of them.

Reading and routing compare queries and keys without positions. The code uses as few tensor operations as possible: on a
CPU each one costs about as much as the arithmetic of a decode step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch


@dataclass(frozen=True)
class Unrotation:
    """The inverse rotary embedding of some rows: `x * cosine + swap(x) * sine`.

    Attributes:
        cosine, sine: `[R, 1, D]` float32; dimensions beyond the rotary ones have cosine = 1, sine = 0.
        rotary_dim: leading dimensions that are rotated.
        neox: halves are rotated against each other (Llama); otherwise neighbours are (GPT-J).
    """

    cosine: torch.Tensor
    sine: torch.Tensor
    rotary_dim: int
    neox: bool

    @classmethod
    def of_rows(
        cls,
        cos_sin: torch.Tensor,
        positions: torch.Tensor,
        *,
        head_dim: int,
        neox: bool,
        dtype: torch.dtype,
    ) -> Unrotation:
        """Tables for rows at `positions`.

        Args:
            cos_sin: the layer's own cache `[positions, rotary_dim]`, cosines then sines. Dividing by cos²+sin² also
                undoes a magnitude factor such as YaRN's.
            positions: `[R]`.
            dtype: dtype in which the engine applied the rotation.
        """
        rotary_dim = cos_sin.shape[1]
        rows = cos_sin.index_select(0, positions).to(dtype).float()
        cos, sin = rows.chunk(2, dim=-1)
        gain = 1 / (cos * cos + sin * sin)
        cos, sin = cos * gain, sin * gain
        if neox:
            cosine, sine = torch.cat([cos, cos], -1), torch.cat([sin, -sin], -1)
        else:
            cosine, sine = cos.repeat_interleave(2, -1), torch.stack([sin, -sin], -1).flatten(-2)
        if rotary_dim < head_dim:
            rest = torch.ones(len(positions), head_dim - rotary_dim, device=cos.device)
            cosine, sine = torch.cat([cosine, rest], -1), torch.cat([sine, torch.zeros_like(rest)], -1)
        return cls(cosine[:, None], sine[:, None], rotary_dim, neox)

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Cosine and sine `[R, D]` for compiled loops."""
        return self.cosine[:, 0].numpy(), self.sine[:, 0].numpy()

    def __call__(self, heads: torch.Tensor) -> torch.Tensor:
        """Undo the rotation of `[R, H, D]`; float32 out."""
        rotated = heads.float()
        part = rotated[..., : self.rotary_dim]
        swapped = part.roll(self.rotary_dim // 2, -1) if self.neox else part.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        if self.rotary_dim < heads.shape[-1]:
            swapped = torch.cat([swapped, rotated[..., self.rotary_dim :]], -1)
        return torch.addcmul(rotated * self.cosine, swapped, self.sine)
