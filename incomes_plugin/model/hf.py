"""The edit-capable model on Hugging Face transformers: captures and reads gists. The engine is tested against it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from incomes_plugin.gist.types import Gist
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.taps import GistTaps
from incomes_plugin.selection.reference import select


@dataclass(frozen=True)
class ReferencePool:
    """Gists of one snapshot, entries in any order.

    Attributes:
        keys, values: `[L', n, K, D]`.
    """

    keys: torch.Tensor
    values: torch.Tensor

    @classmethod
    def of(cls, gists: list[Gist]) -> ReferencePool:
        """All gists in one pool."""
        return cls(torch.cat([g.keys for g in gists], dim=1), torch.cat([g.values for g in gists], dim=1))


class EditableModel:
    """A Hugging Face causal LM with its edit adapter.

    Args:
        model: Llama-family decoder in eval mode.
        adapter: the adapter that belongs to it.
    """

    def __init__(self, model: PreTrainedModel, adapter: EditAdapter) -> None:
        self.model = model
        self.adapter = adapter
        self._taps = GistTaps(model, adapter.shape.layers, adapter.shape.head_dim)

    @classmethod
    def load(cls, model_dir: Path, dtype: torch.dtype = torch.float32) -> EditableModel:
        """Load checkpoint and adapter from one folder."""
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype)
        return cls(model.eval(), EditAdapter.load(model_dir))

    @torch.inference_mode()
    def capture(self, text_ids: list[int], *, edit_id: str = "edit", version: int = 1) -> Gist:
        """The gist of one edit text (token ids without BOS and gist tokens)."""
        ids = self.adapter.capture_ids(text_ids)
        self._taps.reader = None
        self.model(input_ids=torch.tensor([ids]))
        first = len(ids) - self.adapter.num_gists(len(text_ids))
        keys = torch.stack([k[0, first:] for k in self._taps.keys])
        values = torch.stack([v[0, first:] for v in self._taps.values])
        return Gist(edit_id, version, _map(keys, self.adapter.key_map), _map(values, self.adapter.value_map))

    @torch.inference_mode()
    def logits(self, ids: list[int], pool: ReferencePool | None = None) -> torch.Tensor:
        """Logits `[T, V]` of a prompt whose every token may pick from `pool`."""
        self._taps.reader = None if pool is None else lambda layer, query: self._read(pool, layer, query)
        output = self.model(input_ids=torch.tensor([ids]))
        self._taps.reader = None
        return output.logits[0]

    def generate(self, ids: list[int], pool: ReferencePool | None, *, max_tokens: int, stop_id: int) -> list[int]:
        """Greedy continuation without the stop token; recomputes the prompt each step."""
        answer: list[int] = []
        while len(answer) < max_tokens:
            token = int(self.logits(ids + answer, pool)[-1].argmax())
            if token == stop_id:
                break
            answer.append(token)
        return answer

    def _read(self, pool: ReferencePool, layer: int, query: torch.Tensor) -> torch.Tensor:
        adapter = self.adapter
        maps = None if adapter.query_map is None else adapter.query_map[layer : layer + 1]
        mapped = _map(query, maps)[0]
        zero_key = adapter.zero_keys[layer].to(query.dtype)
        scale = adapter.scale(pool.keys.shape[1])
        return select(mapped, zero_key, pool.keys[layer], pool.values[layer], scale)[0][None]


def _map(heads: torch.Tensor, maps: torch.Tensor | None) -> torch.Tensor:
    """Apply per-head maps `[L', H, D, D]` to `[L', T, H, D]`."""
    return heads if maps is None else torch.einsum("lthd,lhde->lthe", heads.float(), maps).to(heads.dtype)
