"""Train reading and copying: from the last prompt token on, the picked edits must give the right answer and its end.

Only rows that read are computed: tokens before them read nothing, so their keys and values are the base's own and were
kept (`features.py`). The right edit comes with some of its rivals, each with a made-up logit of the verifier.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from incomes_plugin.gist.spelling import SPELLED
from incomes_plugin.gist.types import GistShape
from incomes_plugin.lab.adapt.copied import SpelledEdits, said_loss
from incomes_plugin.lab.adapt.features import EditFeatures, ReadingFeatures, reading_past
from incomes_plugin.lab.adapt.training import Descent, Tick, descend
from incomes_plugin.model.decoder import Decoder
from incomes_plugin.selection.copying import Copier
from incomes_plugin.selection.reading import Reader, read

_REPEATS = 3.0
"""What is taken off the logits of an edit that an answer begins anew. Answers to learn from never do so, and a model
that says one of two edits twice is not corrected by them. Measured: docs/experiments.md."""


@dataclass(frozen=True)
class ReadingSteps:
    """How long training is.

    Attributes:
        steps, batch: updates, and questions in each.
        rate: largest learning rate.
        rivals: wrong picks beside the right one, at most; as many as are drawn from 0 to this.
        copying: weight of the loss of copying alone.
        led: taken off the bias of an edit that has led to another one, in training as in serving. An answer that reads
            all edits of a chain alike names one between oftener than the last. Measured: docs/experiments.md.
    """

    steps: int = 1600
    batch: int = 32
    rate: float = 4.5e-3
    rivals: int = 3
    copying: float = 0.5
    led: float = 4.0


@dataclass(frozen=True)
class Picked:
    """Picks of a batch.

    Attributes:
        keys, values: `[B, L', K, E, D]`, keys before rotary embedding.
        bias: `[B, E]`, -inf where there is no token.
    """

    keys: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor

    def of(self, places: Sequence[int]) -> Picked:
        """Those of some rows of the batch, as wide as their longest."""
        bias = self.bias[list(places)]
        width = int(bias.isfinite().sum(1).max())
        keys, values = (part[list(places), :, :, :width] for part in (self.keys, self.values))
        return Picked(keys, values, bias[:, :width])


@dataclass(frozen=True)
class Answered:
    """The n rows of a batch that have a label, one prompt's after the other.

    Attributes:
        hidden: `[n, N]`, behind the last norm.
        labels: `[n]`, the token to be said.
        said: `[n, 3]`, what the answer has said last, the latest first; -1 for nothing.
        prompt: `[n]`, row of the batch.
        place: `[n]`, how many tokens of the answer come before.
    """

    hidden: torch.Tensor
    labels: torch.Tensor
    said: torch.Tensor
    prompt: torch.Tensor
    place: torch.Tensor


class Answering(nn.Module):
    """What is trained together."""

    def __init__(self, reader: Reader, copier: Copier) -> None:
        super().__init__()
        self.reader = reader
        self.copier = copier


def gather(edits: EditFeatures, picks: Sequence[Sequence[int]], logits: Sequence[Sequence[float]]) -> Picked:
    """Tokens of each row's picks, one after the other; `logits` are the verifier's."""
    lengths = [[int(edits.keys.starts[e + 1] - edits.keys.starts[e]) for e in row] for row in picks]
    width = max(sum(row) for row in lengths)
    shape = edits.keys.flat.shape[1:]
    keys = edits.keys.flat.new_zeros(len(picks), width, *shape)
    values = keys.clone()
    bias = torch.full((len(picks), width), -torch.inf)
    for b, row in enumerate(picks):
        place = 0
        for edit, length, logit in zip(row, lengths[b], logits[b], strict=True):
            part = slice(place, place + length)
            keys[b, part], values[b, part] = edits.keys[edit], edits.values[edit]
            bias[b, part] = F.logsigmoid(torch.tensor(logit))
            place += length
    return Picked(keys.permute(0, 2, 3, 1, 4), values.permute(0, 2, 3, 1, 4), bias)


def answered(
    decoder: Decoder, reader: Reader, shape: GistShape, found: ReadingFeatures, indices: Sequence[int], picked: Picked
) -> Answered:  # fmt: skip
    """Run the rows of some prompts' answers through the layers that read and those above.

    Short answers are not padded to the longest of all: most have 6 tokens, and a few in a batch have 20 or more.
    """
    of_length: dict[int, list[int]] = {}
    for place, index in enumerate(indices):
        length = int(found.rows.starts[index + 1] - found.rows.starts[index])
        of_length.setdefault(max(2, (length - 1).bit_length()), []).append(place)
    parts = [
        _padded(decoder, reader, shape, found, [indices[place] for place in own], picked.of(own), own)
        for own in of_length.values()
    ]
    return Answered(*(torch.cat([getattr(part, one.name) for part in parts]) for one in fields(Answered)))


def _padded(
    decoder: Decoder, reader: Reader, shape: GistShape, found: ReadingFeatures, indices: Sequence[int], picked: Picked,
    places: Sequence[int],
) -> Answered:  # fmt: skip
    """Those of answers of like length, which stand in these places of the batch."""
    rows, mask = found.rows.padded(indices)
    labels, _ = found.labels.padded(indices)
    past, start = reading_past(found, indices)
    first = decoder.num_layers - found.before.flat.shape[1]  # where the rows were captured
    keys, values = picked.keys.float(), picked.values.float()

    def read_hook(layer: int, query: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        if layer not in shape.layers:
            return output
        i, (batch, length) = shape.layers.index(layer), query.shape[:2]

        def each(part: torch.Tensor) -> torch.Tensor:
            return part.repeat_interleave(length, 0)

        taken = read(
            query.flatten(0, 1).float(), each(keys[:, i]), each(values[:, i]), each(picked.bias),
            reader.query_map[i], reader.output_map[i], reader.zero_query[i], reader.zero_bias[i],
        )  # fmt: skip
        gate = taken.gate[..., None]
        mixed = (1 - gate) * output.flatten(0, 1).float() + gate * taken.output
        return mixed.view(batch, length, *mixed.shape[1:]).to(output.dtype)

    positions = start + torch.arange(rows.shape[1])
    hidden = decoder.run(rows, first, decoder.num_layers, positions=positions, mask=mask, past=past, read=read_hook)
    before = F.pad(labels.masked_fill(~mask, -1), (SPELLED, 0), value=-1)
    said = torch.stack([before[:, SPELLED - 1 - i : before.shape[1] - 1 - i] for i in range(SPELLED)], -1)
    prompt = torch.tensor(places)[:, None].expand(mask.shape)
    place = torch.arange(mask.shape[1]).expand(mask.shape)
    return Answered(decoder.normed(hidden[mask]), labels[mask], said[mask], prompt[mask], place[mask])


def train_reader(
    decoder: Decoder, shape: GistShape, edits: EditFeatures, spelled: SpelledEdits, found: ReadingFeatures,
    places: Sequence[int], owners: Sequence[tuple[int, ...]], rivals: Sequence[Sequence[int]], leading: Sequence[int],
    given: Sequence[int], settings: ReadingSteps, *, seed: int, tick: Tick = lambda *_: None,
    checkpoint: Path | None = None,
) -> tuple[Reader, Copier]:  # fmt: skip
    """A reader and a copier.

    Args:
        edits: as gists give them back, in the dtype that the engine reads them in.
        spelled: the same edits' spellings.
        found: prompts with answers.
        places: those of them to learn from.
        owners: the edits that answer each of these.
        rivals: edits that the router likes for each of them, best first; the owners may be among them.
        leading: how many of the owners, from the first one on, lead to the next one.
        given: how many tokens each answer begins with that are not learned.
    """
    torch.manual_seed(seed)
    copier = Copier(decoder.hidden_size, shape.latent_dim)
    copier.spread.copy_(spelled.latents.flat.float().std(0).clamp_min(1e-6))
    module = Answering(Reader(shape, decoder.num_heads), copier)
    how = Descent(settings.steps, settings.rate, warm=20, betas=(0.9, 0.98))

    def loss_of(rng: random.Random) -> torch.Tensor:
        chosen = rng.sample(range(len(owners)), min(settings.batch, len(owners)))
        picks, logits = [], []
        for i in chosen:
            wrong = [e for e in rivals[i] if e not in owners[i]][: rng.choice([0, 0, 1, settings.rivals])]
            row = [(e, rng.uniform(1.0, 8.0)) for e in owners[i][leading[i] :]]
            row += [(e, rng.uniform(-2.0, 0.0) - settings.led) for e in owners[i][: leading[i]]]
            row += [(e, rng.uniform(-4.0, 3.0)) for e in wrong]
            rng.shuffle(row)
            picks.append([e for e, _ in row])
            logits.append([x for _, x in row])
        prompts = [places[i] for i in chosen]
        rows = answered(decoder, module.reader, shape, found, prompts, gather(edits, picks, logits))
        base = decoder.unembed(rows.hidden).float()
        learned = rows.place >= torch.tensor([given[i] for i in chosen])[rows.prompt]
        whole, alone = said_loss(
            copier, base, rows.hidden, rows.said, rows.labels, spelled.of(copier, picks, logits), rows.prompt, learned
        )
        return whole + settings.copying * alone

    descend(module, loss_of, how, seed=seed, tick=tick, checkpoint=checkpoint)
    copier.against_repeats(_REPEATS)
    return module.reader, module.copier
