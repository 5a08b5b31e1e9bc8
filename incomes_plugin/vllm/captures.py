"""Gists on their way out of the engine: made of the KV cache when the last prompt token of a capture was computed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

import torch

from incomes_plugin.errors import CompressionFailed
from incomes_plugin.gist.types import Gist
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.selection.attention import Unrotation
from incomes_plugin.vllm.kv_cache import AttentionLayer, CachedHeads
from incomes_plugin.vllm.rows import RequestTag

_MAX_KEPT = 4096


class CaptureStore:
    """Gists of this worker until they are taken; abandoned ones fall out, oldest first.

    Args:
        adapter: the model's edit adapter.
        layers: decoder layers by number.
    """

    def __init__(self, adapter: EditAdapter, layers: Mapping[int, AttentionLayer]) -> None:
        self._adapter = adapter
        self._back = {layer: _turns_back(layers[layer].rotary, adapter) for layer in adapter.shape.layers}
        self._finished: OrderedDict[str, Gist | None] = OrderedDict()

    def finish(self, tag: RequestTag, cached: CachedHeads, pages: torch.Tensor) -> None:
        """Make the gist of a prompt that is in the KV cache now; None stands for one that is not finite.

        Args:
            pages: the request's row of the block table.
        """
        assert tag.capture is not None
        positions = torch.arange(tag.first, tag.first + tag.count, device=pages.device)
        layers = self._adapter.shape.layers
        features = cached.features(self._adapter, pages, positions)
        keys = torch.stack([self._turned_back(layer, cached.keys(layer, pages, positions)) for layer in layers])
        values = torch.stack([cached.values(layer, pages, positions) for layer in layers])
        finite = all(bool(part.isfinite().all()) for part in (features, keys, values))
        gist = self._adapter.gist("", 0, features, keys.transpose(1, 2), values.transpose(1, 2)) if finite else None
        self._finished[tag.capture] = gist
        while len(self._finished) > _MAX_KEPT:
            self._finished.popitem(last=False)

    def take(self, name: str, edit_id: str, version: int) -> Gist:
        """The finished gist, which leaves the store.

        Raises:
            CompressionFailed: the capture is unknown, or not finite.
        """
        if name not in self._finished:
            raise CompressionFailed(f"{edit_id} was not captured")
        gist = self._finished.pop(name)
        if gist is None:
            raise CompressionFailed(f"the gist of {edit_id} is not finite")
        return replace(gist, edit_id=edit_id, version=version)

    def _turned_back(self, layer: int, keys: torch.Tensor) -> torch.Tensor:
        """Keys `[E, K, D]` of E tokens, from before rotary embedding to the positions -E … -1."""
        back = self._back[layer]
        rows = slice(len(back.cosine) - len(keys), None)
        return replace(back, cosine=back.cosine[rows], sine=back.sine[rows])(keys)


def _turns_back(rotary: object, adapter: EditAdapter) -> Unrotation:
    """The turn to positions -M … -1, M = longest edit, with the tables as they are before the engine rounds them.

    The factor keeps what a rotary embedding such as YaRN's multiplies keys with.
    """
    cos_sin = rotary.cos_sin_cache[: adapter.max_edit_tokens + 1].float()  # type: ignore[attr-defined]
    positions = torch.arange(len(cos_sin) - 1, 0, -1, device=cos_sin.device)
    cosine, sine = cos_sin[positions].chunk(2, -1)
    gain = (cosine * cosine + sine * sine)[:, 0]
    return Unrotation.of_rows(
        cos_sin, positions, gain,
        head_dim=adapter.shape.head_dim, neox=rotary.is_neox_style, dtype=torch.float32,  # type: ignore[attr-defined]
    )  # fmt: skip
