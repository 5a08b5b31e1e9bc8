"""The reference: frozen base in Hugging Face transformers that captures, routes, reads and copies. Tests of the engine
use it.

It is slow and simple: one prompt at a time, everything is computed again for every token, float32 by default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from incomes_plugin.gist.edit import EditKey
from incomes_plugin.gist.spelling import SPELLED, Speller, Spelling, joined
from incomes_plugin.gist.types import Gist
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.decoder import Decoder, Heads
from incomes_plugin.selection.attribution import by_edit
from incomes_plugin.selection.copying import covering, mixed
from incomes_plugin.selection.picks import Picks, choose
from incomes_plugin.selection.reading import read
from incomes_plugin.selection.routing import QUESTION_TOKENS, RouteKeys


@dataclass(frozen=True)
class ReferencePool:
    """Gists of one snapshot, oldest edit first."""

    gists: Sequence[Gist]
    adapter: EditAdapter

    @cached_property
    def table(self) -> RouteKeys:
        """Route keys, one row an edit."""
        keys = [self.adapter.router.route_keys(gist.features.unpack()) for gist in self.gists]
        width = max((len(k) for k in keys), default=1)
        rows = [torch.cat([k, k[-1:].expand(width - len(k), -1)]) for k in keys]
        dim = self.adapter.router.key.out_features
        return RouteKeys(torch.stack(rows) if rows else torch.empty(0, 1, dim), None, len(rows))


class EditableModel:
    """A base with its edit adapter.

    Args:
        model: decoder of Llama's shape in eval mode.
        adapter: the adapter that belongs to it.
        spell: makes the spelling of an edit of its token ids.

    Attributes:
        picks: of the last prompt.
        attribution: of the rows that read in the last call of `logits`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        adapter: EditAdapter,
        spell: Callable[[Sequence[int]], Spelling] = Spelling.plain,
    ) -> None:
        self.model = model
        self.adapter = adapter
        self.spell = spell
        self.decoder = Decoder(model)
        self.picks = Picks.none()
        self.attribution = by_edit({})

    @classmethod
    def load(cls, base_dir: Path, adapter_dir: Path, dtype: torch.dtype = torch.float32) -> EditableModel:
        """Load base and adapter.

        Raises:
            GistFormatError: no adapter, or a damaged one.
            FingerprintMismatch: the adapter was made for another base.
        """
        adapter = EditAdapter.for_base(adapter_dir, base_dir)
        model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=dtype)
        return cls(model.eval().requires_grad_(False), adapter, Speller(AutoTokenizer.from_pretrained(base_dir)))

    @torch.inference_mode()
    def capture(self, text: Sequence[int], *, edit_id: str = "edit", version: int = 1) -> Gist:
        """The gist of an edit text (token ids of the text alone)."""
        template = self.adapter.template
        heads = self._heads(template.capture_ids(text))
        place = slice(len(template.edit_prefix), len(template.edit_prefix) + len(text))
        shape = self.adapter.shape
        keys = torch.stack([heads[i].key[0, place] for i in shape.layers], 1)
        values = torch.stack([heads[i].value[0, place] for i in shape.layers], 1)
        return self.adapter.gist(edit_id, version, self._features(heads, place), keys, values, self.spell(text))

    def pool(self, gists: Sequence[Gist]) -> ReferencePool:
        """A pool of gists, oldest first."""
        return ReferencePool(gists, self.adapter)

    @torch.inference_mode()
    def route(self, prompt: Sequence[int], pool: ReferencePool) -> Picks:
        """Which edits a prompt reads."""
        template = self.adapter.template
        start, end = template.question_span(prompt, QUESTION_TOKENS)
        features = self._features(self._heads(prompt), slice(start, end))
        gists = pool.gists
        return choose(
            self.adapter.picking, features, pool.table, lambda edit: gists[edit].features.unpack(), lambda edit: edit,
            lines=template.line_starts(prompt[start:end]),
        )  # fmt: skip

    @torch.inference_mode()
    def logits(
        self, ids: Sequence[int], pool: ReferencePool | None = None, prompt_tokens: int | None = None
    ) -> torch.Tensor:
        """Logits `[T, V]`; tokens from the prompt's last on read what the prompt picks from `pool`, and copy from it:
        then their logits are those of the mixture.

        Args:
            prompt_tokens: length of the prompt at the beginning of `ids`; all of them by default.
        """
        prompt_tokens = len(ids) if prompt_tokens is None else prompt_tokens
        self.picks = Picks.none() if pool is None else self.route(ids[:prompt_tokens], pool)
        reading = _Reading(self.adapter, prompt_tokens - 1, pool, self.picks) if pool and self.picks.edits else None
        embedded = self.decoder.embed(torch.tensor([list(ids)]))
        hidden = self.decoder.run(embedded, 0, self.decoder.num_layers, read=reading)
        self.attribution = by_edit({} if reading is None else reading.weights())
        logits = self.decoder.logits(hidden)[0]
        if reading is None or pool is None:
            return logits
        first, normed = prompt_tokens - 1, self.decoder.normed(hidden)[0]
        gists = [pool.gists[edit] for edit in self.picks.edits]
        copied = self._copied(gists, normed[first:], logits[first:], _said(ids, prompt_tokens))
        return torch.cat([logits[:first].float(), copied])

    def generate(
        self, prompt: Sequence[int], pool: ReferencePool | None, *, max_tokens: int, stop_ids: Sequence[int]
    ) -> list[int]:
        """Greedy continuation without the stop token; recomputes the prompt each step."""
        answer: list[int] = []
        while len(answer) < max_tokens:
            token = int(self.logits([*prompt, *answer], pool, len(prompt))[-1].argmax())
            if token in stop_ids:
                break
            answer.append(token)
        return answer

    def _copied(
        self, gists: Sequence[Gist], normed: torch.Tensor, logits: torch.Tensor, said: torch.Tensor
    ) -> torch.Tensor:
        """Logits `[rows, V]` of rows that copy from the picked edits.

        Args:
            normed: `[rows, hidden]`, behind the last norm.
            logits: `[rows, V]` of the base.
            said: `[rows, 3]`.
        """
        copier, spellings = self.adapter.copier, [gist.spelling for gist in gists]
        keys = torch.cat([copier.keys_of(gist.latents.unpack(), gist.spelling) for gist in gists])
        table = joined([spelling.table() for spelling in spellings])
        bias = self.picks.bias.repeat_interleave(torch.tensor([len(spelling.tokens) for spelling in spellings]))
        cover = torch.zeros(len(said), len(table), dtype=torch.int64)
        for row in range(1, len(said)):
            cover[row] = covering(cover[row - 1 : row], table, said[row - 1 : row], said[row, :1])
        return mixed(logits, copier.weights(normed, keys, table, bias, said, cover), table[:, 0].expand(cover.shape))

    def _heads(self, ids: Sequence[int]) -> dict[int, Heads]:
        found: dict[int, Heads] = {}
        last = max((*self.adapter.shape.layers, *self.adapter.shape.feature_layers)) + 1
        self.decoder.run(self.decoder.embed(torch.tensor([list(ids)])), 0, last, on_layer=found.__setitem__)
        return found

    def _features(self, heads: dict[int, Heads], place: slice) -> torch.Tensor:
        keys = torch.cat([heads[i].key[0, place].flatten(1) for i in self.adapter.shape.feature_layers], -1)
        return self.adapter.standardise(keys)


class _Reading:
    """The read hook of one request.

    Args:
        first: the first row that reads.
    """

    def __init__(self, adapter: EditAdapter, first: int, pool: ReferencePool, picks: Picks) -> None:
        self._adapter = adapter
        self._first = first
        self._gists = [pool.gists[edit] for edit in picks.edits]
        self._keys, self._values = (
            torch.cat(parts, 2)
            for parts in zip(*(adapter.codec.decode(gist.latents.unpack()) for gist in self._gists), strict=True)
        )
        self._bias = picks.bias.repeat_interleave(torch.tensor([gist.num_tokens for gist in self._gists]))
        self._taken: list[torch.Tensor] = []  # of each layer, `[E]`

    def __call__(self, layer: int, query: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Self-attention's output `[1, T, H, D]` with what the rows from the first one on read."""
        if layer not in self._adapter.shape.layers:
            return output
        index, reader = self._adapter.shape.layers.index(layer), self._adapter.reader
        rows = query[0, self._first :].float()
        picked = self._keys[index], self._values[index], self._bias
        keys, values, bias = (part.expand(len(rows), *part.shape) for part in picked)
        maps = (reader.query_map, reader.output_map, reader.zero_query, reader.zero_bias)
        found = read(rows, keys, values, bias, *(tensor[index] for tensor in maps))
        gate = found.gate[..., None]
        self._taken.append((gate * found.weights).mean((0, 1)))
        changed = output.clone()
        own = output[0, self._first :].float()
        changed[0, self._first :] = ((1 - gate) * own + gate * found.output).to(output.dtype)
        return changed

    def weights(self) -> dict[EditKey, float]:
        """The weight of each edit in what was read, averaged over heads, rows and layers."""
        tokens = torch.stack(self._taken).mean(0).split([gist.num_tokens for gist in self._gists])
        return {gist.edit: float(part.sum()) for gist, part in zip(self._gists, tokens, strict=True)}


def _said(ids: Sequence[int], prompt_tokens: int) -> torch.Tensor:
    """`[rows, 3]` int64 of each row from the prompt's last on: what the answer has said last, -1 for nothing."""
    answer = [*[-1] * SPELLED, *ids[prompt_tokens:]]
    return torch.tensor([answer[row : row + SPELLED][::-1] for row in range(len(ids) - prompt_tokens + 1)])
