"""Everything that the frozen base computed of a plan's texts: what training and calibration work on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from incomes_plugin.gist.types import Packed
from incomes_plugin.lab.adapt.features import EditFeatures, Ragged, ReadingFeatures
from incomes_plugin.selection.codec import Codec


@dataclass(frozen=True)
class Standard:
    """Mean and spread `[F]` of the features of edits' tokens, by which all features are standardised."""

    mean: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, edits: Ragged) -> Standard:
        """Mean and spread of these features."""
        flat = edits.flat.float()
        return cls(flat.mean(0), flat.std(0).clamp_min(1e-6))

    def __call__(self, part: Ragged) -> Ragged:
        """Standardised features."""
        return Ragged((part.flat.float() - self.mean) / self.scale, part.starts)


@dataclass(frozen=True)
class BaseFeatures:
    """Features are standardised; edits' keys and values are as they come out of a gist.

    Attributes:
        edits, questions, refused: of all texts of the plan, in its order.
        reading: of the answers that reading learns from.
        read_rows: the questions of these answers, rows of `questions`.
        standard: how features were standardised.
        codec: what a gist keeps of keys and values.
        latents: `[E, R]` of each edit, as they come out of a gist.
    """

    edits: EditFeatures
    questions: Ragged
    refused: Ragged
    reading: ReadingFeatures
    read_rows: list[int]
    standard: Standard
    codec: Codec
    latents: Ragged


def kept(codec: Codec, found: EditFeatures) -> tuple[EditFeatures, Ragged]:
    """The edits' keys and values as they come out of a gist: encoded, rounded to 8 bits, decoded; and their latents."""
    latents = Packed.of(codec.encode(found.keys.flat, found.values.flat)).unpack()
    keys, values = (part.permute(2, 0, 1, 3).to(found.keys.flat.dtype).contiguous() for part in codec.decode(latents))
    starts = found.keys.starts
    return EditFeatures(found.features, Ragged(keys, starts), Ragged(values, starts)), Ragged(latents, starts)
