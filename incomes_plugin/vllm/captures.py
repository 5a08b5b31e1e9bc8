"""Gists on their way out of the engine. A gist is made from the KV cache when the last prompt token of a capture has
been computed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import torch

from incomes_plugin.errors import CompressionFailed
from incomes_plugin.gist.spelling import Spelling
from incomes_plugin.gist.types import Gist, spelling_fits
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.vllm.kv_cache import CachedHeads
from incomes_plugin.vllm.rows import RequestTag

_MAX_KEPT = 4096


class CaptureStore:
    """Keeps the gists that this worker has made until they are taken. If too many are left behind, the oldest are
    dropped.

    Args:
        adapter: the model's edit adapter.
    """

    def __init__(self, adapter: EditAdapter) -> None:
        self._adapter = adapter
        self._finished: OrderedDict[str, Gist | None] = OrderedDict()

    def finish(self, tag: RequestTag, cached: CachedHeads, pages: torch.Tensor) -> None:
        """Make the gist of a prompt that lies in the KV cache now. If its numbers are not finite, None is kept.

        Args:
            pages: the request's row of the block table.
        """
        assert tag.capture is not None
        positions = torch.arange(tag.first, tag.first + tag.count, device=pages.device)
        layers = self._adapter.shape.layers
        features = cached.features(self._adapter, pages, positions)
        keys, values = cached.keys(layers, pages, positions), cached.values(layers, pages, positions)
        finite = all(bool(part.isfinite().all()) for part in (features, keys, values))
        gist = self._adapter.gist("", 0, features, keys, values, Spelling.of([])) if finite else None
        self._finished[tag.capture] = gist
        while len(self._finished) > _MAX_KEPT:
            self._finished.popitem(last=False)

    def take(self, name: str, edit_id: str, version: int, spelling: Spelling) -> Gist:
        """Take a finished gist out of the store; it gets its spelling now.

        Raises:
            CompressionFailed: the capture is unknown or not finite, or the spelling is not of its text.
        """
        if name not in self._finished:
            raise CompressionFailed(f"{edit_id} was not captured")
        gist = self._finished.pop(name)
        if gist is None:
            raise CompressionFailed(f"the gist of {edit_id} is not finite")
        if not spelling_fits(spelling, gist.num_tokens) or len(spelling.places.unique()) != gist.num_tokens:
            raise CompressionFailed(f"the gist of {edit_id} has no spelling of its {gist.num_tokens} tokens")
        return replace(gist, edit_id=edit_id, version=version, spelling=spelling)
