"""Gists on their way out of the engine: rows of a capture prompt, gathered over the steps of its prefill."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch

from incomes_plugin.errors import CompressionFailed
from incomes_plugin.gist.types import Gist
from incomes_plugin.selection.keeping import KeepRule
from incomes_plugin.vllm.step import CaptureRows

_MAX_KEPT = 4096


@dataclass
class _Capture:
    keys: torch.Tensor
    values: torch.Tensor
    missing: set[int]


class CaptureStore:
    """Captures of this worker until they are taken; abandoned ones fall out, oldest first.

    Args:
        shape: (L', K, D) of this worker.
        dtype: dtype of the finished gists (the compute dtype).
        keep: which gists of a finished capture are handed out; None = all.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype, keep: KeepRule | None = None) -> None:
        self._shape = shape
        self._dtype = dtype
        self._keep = keep
        self._captures: OrderedDict[str, _Capture] = OrderedDict()

    def open(self, capture: str, num_gists: int) -> None:
        """Expect `num_gists` rows; opening again (after a preemption) keeps what is there."""
        if capture not in self._captures:
            layers, *heads = self._shape
            empty = torch.zeros(layers, num_gists, *heads, dtype=self._dtype)
            self._captures[capture] = _Capture(empty, empty.clone(), set(range(num_gists)))
            while len(self._captures) > _MAX_KEPT:
                self._captures.popitem(last=False)

    def put(self, step: CaptureRows) -> None:
        """Keep the rows of a finished step; a row computed again replaces its first value."""
        keys, values = step.keys.to("cpu", self._dtype), step.values.to("cpu", self._dtype)
        for row, (name, gist) in enumerate(step.targets):
            capture = self._captures.get(name)
            if capture is not None:
                capture.keys[:, gist] = keys[:, row]
                capture.values[:, gist] = values[:, row]
                capture.missing.discard(gist)

    def take(self, name: str, edit_id: str, version: int) -> Gist:
        """The finished gist, which leaves the store.

        Raises:
            CompressionFailed: the capture is unknown, incomplete, or not finite.
        """
        capture = self._captures.pop(name, None)
        if capture is None or capture.missing:
            left = "all" if capture is None else len(capture.missing)
            raise CompressionFailed(f"{left} gist rows of {edit_id} were not captured")
        if not (capture.keys.isfinite().all() and capture.values.isfinite().all()):
            raise CompressionFailed(f"the gist of {edit_id} is not finite")
        gist = Gist(edit_id, version, capture.keys, capture.values)
        return gist if self._keep is None else self._keep.thin(gist)
