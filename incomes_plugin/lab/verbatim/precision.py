"""The precision in which memory vectors are stored, and what the model is given of vectors that are stored so."""

from __future__ import annotations

from enum import StrEnum

import torch

from incomes_plugin.gist.types import Packed


class Precision(StrEnum):
    """How the numbers of a stored vector are kept. `int8` has one float16 scale for each vector."""

    FLOAT32 = "fp32"
    BFLOAT16 = "bf16"
    INT8 = "int8"

    @property
    def bits(self) -> int:
        """Bits of one number (b of the capacity bound)."""
        return {Precision.FLOAT32: 32, Precision.BFLOAT16: 16, Precision.INT8: 8}[self]

    def tensors(self, vectors: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is written to disk of vectors `[K, hidden]`: `vectors`, and `scale` for int8."""
        if self is Precision.INT8:
            packed = Packed.of(vectors)
            return {"vectors": packed.data, "scale": packed.scale}
        return {"vectors": vectors.detach().to(self.dtype).contiguous()}

    @property
    def dtype(self) -> torch.dtype:
        """Of the stored numbers."""
        return {
            Precision.FLOAT32: torch.float32, Precision.BFLOAT16: torch.bfloat16, Precision.INT8: torch.int8,
        }[self]  # fmt: skip

    def restored(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Vectors `[K, hidden]` float32 of what `tensors` wrote."""
        if self is Precision.INT8:
            return Packed(tensors["vectors"], tensors["scale"]).unpack()
        return tensors["vectors"].float()

    def as_stored(self, vectors: torch.Tensor) -> torch.Tensor:
        """The float32 numbers that a reader of the stored form gets, with the gradient of the unrounded ones."""
        with torch.no_grad():
            change = self.restored(self.tensors(vectors)) - vectors
        return vectors + change
