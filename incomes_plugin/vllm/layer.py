"""One reading layer: what happens inside the opaque attention op, between self-attention and output projection.

It computes the same as `selection/reading.py`: on a CPU in compiled loops (`cpu_kernels.py`), elsewhere and for many
rows in few tensor operations. There the logit of the zero-gist comes out of the same product as the mapped query: it is
one more column of the query's map.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch

from incomes_plugin.selection.reading import Reader
from incomes_plugin.vllm.arrays import Arrays
from incomes_plugin.vllm.step import ReadRows

_MOST_PRODUCTS = 1 << 21
"""Products of one map of a layer with all rows up to which one thread is fast enough: 50 rows of the default base."""


class ReadingLayer:
    """Weights of one reading layer, on the device.

    Args:
        index: 0 … L'-1 among the reading layers.
        reader: of the adapter.
        rotary: the layer's rotary module, shared between layers or not.
        heads: that this worker has.
    """

    def __init__(self, index: int, reader: Reader, rotary: Any, heads: slice) -> None:
        self.index = index
        self.rotary = rotary
        query_map, zero_query = reader.query_map[index, heads], reader.zero_query[index, heads]
        scaled = query_map / math.sqrt(query_map.shape[1])
        self._query_map = torch.cat([scaled, zero_query[..., None]], -1).contiguous()  # [H, D, D + 1]
        self._offset = self._query_map.new_zeros(len(query_map), 1, self._query_map.shape[-1])
        self._offset[:, 0, -1] = reader.zero_bias[index, heads]
        self._output_map = reader.output_map[index, heads].contiguous()
        self._zero = zero_query.contiguous(), reader.zero_bias[index, heads].contiguous()
        self._scaled = scaled.contiguous()

    @property
    def num_heads(self) -> int:
        """H that this worker has."""
        return len(self._scaled)

    def fits_loops(self, num_rows: int) -> bool:
        """Whether one thread does so many rows on a CPU."""
        return num_rows * self._scaled.numel() <= _MOST_PRODUCTS

    def read(self, rows: ReadRows, query: torch.Tensor, output: torch.Tensor) -> None:
        """Replace the reading rows of `output` `[T, H, D]` by `(1 - g) o_self + g o_edit`.

        Args:
            query: `[T, H, D]`, after rotary embedding.
        """
        batch = rows.batch
        if batch.arrays is not None and self.fits_loops(len(rows.slots)):
            self._read_in_loops(rows, batch.arrays, query, output)
            return
        plain = rows.unrotations[id(self.rotary)](rows.of(query))
        own = rows.of(output).float()
        keys, values, bias = (
            rows.of_requests(part) for part in (batch.keys[self.index], batch.values[self.index], batch.bias)
        )
        mixed, weights = self.mix(own, plain, keys, values, bias)
        rows.write(output, mixed)
        if rows.trace is not None:
            rows.trace.weights += weights.mean(1)

    def _read_in_loops(self, rows: ReadRows, batch: Arrays, query: torch.Tensor, output: torch.Tensor) -> None:
        from incomes_plugin.vllm.cpu_kernels import read_rows

        own, asked = (rows.of(part).float().contiguous() for part in (output, query))
        unrotation = rows.unrotations[id(self.rotary)]
        read_rows(
            own.numpy(), asked.numpy(), *unrotation.arrays, unrotation.rotary_dim, unrotation.neox, *self._arrays,
            batch.keys[self.index], batch.values[self.index], batch.bias, batch.counts, rows.slots, rows.taken,
        )  # fmt: skip
        rows.write(output, own)
        if rows.trace is not None:
            rows.trace.weights += torch.from_numpy(rows.taken).mean(1)[:, : rows.trace.weights.shape[1]]

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A_q / sqrt(D), z, the zero-gist's own logit, and U, for compiled loops."""
        zero_query, zero_bias = self._zero
        return self._scaled.numpy(), zero_query.numpy(), zero_bias.numpy(), self._output_map.numpy()

    def mix(
        self, own: torch.Tensor, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`(1 - g) o_self + g o_edit` `[R, H, D]`, and g times the weights of `selection.reading.read`, `[R, H, E]`.

        A sigmoid of the difference of two logits is a softmax over both, so one softmax over the tokens and the
        zero-gist gives 1 - g, the zero-gist's share, and g times the weight of each token.

        Args:
            own: `[R, H, D]` float32, o_self.
            query: `[R, H, D]` float32, before rotary embedding.
            keys: `[R, K, D, E]` float32.
            values: `[R, K, E, D]` float32.
            bias: `[R, 1, 1, E]`.
        """
        num_rows, num_heads, _ = query.shape
        grouped = (num_rows, keys.shape[1], num_heads // keys.shape[1], -1)
        mapped = torch.baddbmm(self._offset, query.transpose(0, 1), self._query_map).transpose(0, 1).reshape(grouped)
        logits = (mapped[..., :-1] @ keys).add_(bias)
        shares = torch.cat([logits, mapped[..., -1:]], -1).softmax(-1)
        weights = shares[..., :-1]
        taken = (weights @ values).view(num_rows, num_heads, -1).transpose(0, 1)
        kept = own * shares[..., -1:].reshape(num_rows, num_heads, 1)
        mixed = torch.baddbmm(kept.transpose(0, 1), taken, self._output_map).transpose(0, 1)
        return mixed, weights.flatten(1, 2)
