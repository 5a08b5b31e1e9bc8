"""Variants of what a request reads of an edit (`gist_tokens.py`): its own tokens, or trained gist tokens behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from incomes_plugin.gist.types import GistShape, Packed
from incomes_plugin.lab.adapt.features import EditFeatures, FrozenBase, Ragged, ReadingFeatures
from incomes_plugin.lab.adapt.reading import Picked, gather
from incomes_plugin.model.decoder import Decoder, Heads, Past
from incomes_plugin.selection.reading import Reader

RANK = 16
Picks = Sequence[Sequence[int]]
Rounding = Callable[[torch.Tensor], torch.Tensor]
"""Rounds `[n, E, ...]`, one scale for each token."""


def int8(numbers: torch.Tensor) -> torch.Tensor:
    """As a gist rounds."""
    return Packed.of(numbers.flatten(2)).unpack().view(numbers.shape)


def fp8(numbers: torch.Tensor) -> torch.Tensor:
    """To eight bits with four of exponent (e4m3), the largest number of a token at the end of their range."""
    most = torch.finfo(torch.float8_e4m3fn).max
    scale = (
        (numbers.flatten(2).abs().amax(-1) / most).clamp_min(1e-12).view(*numbers.shape[:2], *[1] * (numbers.dim() - 2))
    )
    return (numbers / scale).to(torch.float8_e4m3fn).float() * scale


ROUNDINGS: dict[str, Rounding] = {"int8": int8, "fp8": fp8}


class Capturing(Decoder):
    """A decoder whose queries, keys and values have low-rank changes; used for the rows of gist tokens alone.

    Args:
        decoder: the frozen base.
        last: layers from this one on are not run.
        count: G.
    """

    def __init__(self, decoder: Decoder, last: int, count: int) -> None:
        super().__init__(decoder.model)
        hidden, dim = self.hidden_size, self.head_dim
        widths = [n * dim for n in (self.num_heads, self.num_kv_heads, self.num_kv_heads)]
        with torch.no_grad():
            mean = decoder.embed(torch.arange(decoder.model.config.vocab_size)).float().mean(0)
        self.tokens = nn.Parameter(mean + 0.02 * torch.randn(count, hidden))
        self.down = nn.Parameter(torch.randn(last, 3, hidden, RANK) / hidden**0.5)
        self.up = nn.ParameterList(nn.Parameter(torch.zeros(last, RANK, width)) for width in widths)

    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [self.tokens, self.down, *self.up]

    def heads(self, index: int, normed: torch.Tensor) -> Heads:
        """As the base's, with the changes."""
        own = super().heads(index, normed)
        found = []
        for place, part in enumerate((own.query, own.key, own.value)):
            change = (normed.float() @ self.down[index, place]) @ self.up[place][index]
            found.append(part + change.view(part.shape).to(part.dtype))
        return Heads(*found)


class Frames:
    """Keys and values `[T, layers, 2, K, D]` of all tokens of captured edits, in the layers below `last`."""

    def __init__(self, base: FrozenBase, edits: Sequence[Sequence[int]], last: int) -> None:
        parts = []
        for text in edits:
            heads: dict[int, Heads] = {}
            ids = torch.tensor([base.template.capture_ids(text)])
            with torch.inference_mode():
                base.decoder.run(base.decoder.embed(ids), 0, last, on_layer=heads.__setitem__)
            parts.append(torch.stack([torch.stack([h.key[0], h.value[0]], 1) for h in heads.values()], 1))
        self.ragged = learnable(Ragged.of(parts))

    def past(self, edits: Sequence[int]) -> Past:
        """In front of these edits' gist tokens."""
        flat, mask = self.ragged.padded(edits)
        keys, values = flat.unbind(3)
        return Past(keys.unbind(2), values.unbind(2), torch.arange(flat.shape[1]).expand(mask.shape), mask)


class GistTokens(nn.Module):
    """A variant: G trained tokens an edit, and the maps that read them."""

    def __init__(self, decoder: Decoder, shape: GistShape, frames: Frames, count: int) -> None:
        super().__init__()
        self.reader = Reader(shape, decoder.num_heads)
        self.capturing = Capturing(decoder, shape.layers[-1] + 1, count)
        self.trained = nn.ParameterList(self.capturing.parameters())
        self.shape, self._frames, self.count = shape, frames, count

    def picked(self, picks: Picks, logits: Sequence[Sequence[float]], rounding: Rounding | None = None) -> Picked:
        """Gists of each row's picks, one after the other."""
        flat = [edit for row in picks for edit in row]
        keys, values = self.capture(flat)
        if rounding is not None:
            keys, values = rounding(torch.stack([keys, values], -1)).unbind(-1)
        sizes = [len(row) * self.count for row in picks]
        width = max(sizes)
        bias = torch.full((len(picks), width), -torch.inf)
        out = []
        for part in (keys, values):
            rows = part.flatten(0, 1).split(sizes)
            out.append(torch.stack([F.pad(r, (0, 0, 0, 0, 0, 0, 0, width - len(r))) for r in rows]))
        for b, row in enumerate(logits):
            of_edits = F.logsigmoid(torch.tensor(list(row))).repeat_interleave(self.count)
            bias[b, : len(of_edits)] = of_edits
        gists, mixes = (part.permute(0, 2, 3, 1, 4) for part in out)
        return Picked(gists, mixes, bias)

    def capture(self, edits: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values `[n, G, L', K, D]` of edits."""
        decoder = self.capturing
        found: dict[int, Heads] = {}
        past = self._frames.past(edits)
        start = past.mask.sum(1, keepdim=True) if past.mask is not None else 0
        dtype = past.keys[0].dtype
        hidden = decoder.tokens.to(dtype).expand(len(edits), -1, -1)
        decoder.run(
            hidden, 0, self.shape.layers[-1] + 1, positions=start + torch.arange(self.count), past=past,
            on_layer=found.__setitem__,
        )  # fmt: skip
        layers = [found[layer] for layer in self.shape.layers]
        return torch.stack([h.key for h in layers], 2).float(), torch.stack([h.value for h in layers], 2).float()

    def num_bytes(self, tokens: float) -> float:
        """Of an edit of so many tokens, without what routing keeps."""
        return self.count * (self.shape.read_dim + 2)


class OwnTokens(nn.Module):
    """A variant: the edit's own tokens in some reading layers, and the maps that read them."""

    def __init__(self, decoder: Decoder, shape: GistShape, edits: EditFeatures, captured: GistShape) -> None:
        super().__init__()
        self.reader, self.shape = Reader(shape, decoder.num_heads), shape
        places = [captured.layers.index(layer) for layer in shape.layers]
        self._edits = EditFeatures(
            edits.features, Ragged(edits.keys.flat[:, places], edits.keys.starts),
            Ragged(edits.values.flat[:, places], edits.values.starts),
        )  # fmt: skip

    def picked(self, picks: Picks, logits: Sequence[Sequence[float]], rounding: Rounding | None = None) -> Picked:
        """The tokens of each row's picks."""
        found = gather(self._edits, picks, logits)
        if rounding is None:
            return found
        both = torch.stack([found.keys, found.values], -1).permute(0, 3, 1, 2, 4, 5)  # [B, E, L', K, D, 2]
        keys, values = rounding(both.float()).permute(0, 2, 3, 1, 4, 5).unbind(-1)
        return Picked(keys, values, found.bias)

    def num_bytes(self, tokens: float) -> float:
        """Of an edit of so many tokens, all numbers in 8 bits, without what routing keeps."""
        return tokens * (self.shape.read_dim + 2)


Found = TypeVar("Found", Ragged, EditFeatures, ReadingFeatures)


def learnable(found: Found) -> Found:
    """A copy that takes part in training: what inference mode made does not."""
    parts: dict[str, Any] = {field.name: getattr(found, field.name) for field in fields(found)}
    for name, part in parts.items():
        parts[name] = part.clone() if isinstance(part, torch.Tensor) else learnable(part)
    return type(found)(**parts)
