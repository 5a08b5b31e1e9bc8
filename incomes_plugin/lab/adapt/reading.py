"""Train reading: from the last prompt token on, the picked edits must give the right answer and its end.

Only rows that read are computed: tokens before them read nothing, so their keys and values are the base's own and were
kept (`features.py`). The right edit comes with some of its rivals, each with a made-up logit of the verifier.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from incomes_plugin.gist.types import GistShape, Packed
from incomes_plugin.lab.adapt.features import EditFeatures, ReadingFeatures, reading_past
from incomes_plugin.lab.adapt.routing import Tick, set_rate
from incomes_plugin.model.decoder import Decoder
from incomes_plugin.selection.reading import Reader, read


@dataclass(frozen=True)
class ReadingSteps:
    """How long training is.

    Attributes:
        steps, batch: updates, and questions in each.
        rate: largest learning rate.
        rivals: wrong picks beside the right one, at most; as many as are drawn from 0 to this.
    """

    steps: int = 600
    batch: int = 32
    rate: float = 3e-3
    rivals: int = 3


@dataclass(frozen=True)
class Picked:
    """Picks of a batch.

    Attributes:
        keys, values: `[B, L', K, E, D]`, keys at their rotary places.
        bias: `[B, E]`, -inf where there is no token.
    """

    keys: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor


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


def answer_logits(
    decoder: Decoder, reader: Reader, shape: GistShape, found: ReadingFeatures, indices: Sequence[int], picked: Picked,
    *, packed: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Logits `[n, V]` of all rows that have a label, and the labels `[n]`.

    Args:
        packed: keep keys and values in 8 bits in between, as gists do.
    """
    rows, mask = found.rows.padded(indices)
    labels, _ = found.labels.padded(indices)
    past, start = reading_past(found, indices)
    keys, values = reader.keep_keys(picked.keys), reader.keep_values(picked.values)
    if packed:
        keys, values = Packed.of(keys).unpack(), Packed.of(values).unpack()
    first, dtype = shape.layers[0], rows.dtype
    keys, values = keys.to(dtype).float(), values.to(dtype).float()

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
    return decoder.logits(hidden[mask]).float(), labels[mask]


def principal_start(reader: Reader, edits: EditFeatures, sample: int = 4096) -> None:
    """Begin with the leading directions of each head's keys and values instead of its first dimensions."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(edits.keys.flat), (sample,), generator=generator)
    groups = reader.query_map.shape[1] // reader.key_map.shape[1]
    with torch.no_grad():
        for flat, maps in ((edits.keys.flat, reader.key_map), (edits.values.flat, reader.value_map)):
            numbers = flat[chosen].float().permute(1, 2, 0, 3)  # [L', K, n, D]
            second = numbers.transpose(-1, -2) @ numbers
            vectors = torch.linalg.eigh(second.double()).eigenvectors
            maps.copy_(vectors[..., -maps.shape[-1] :].float())
        reader.query_map.copy_(reader.key_map.repeat_interleave(groups, 1))
        reader.output_map.copy_(reader.value_map.transpose(-1, -2).repeat_interleave(groups, 1))


def train_reader(
    decoder: Decoder, shape: GistShape, edits: EditFeatures, found: ReadingFeatures, owners: Sequence[int],
    rivals: Callable[[int], Sequence[int]], settings: ReadingSteps, *, seed: int, tick: Tick = lambda *_: None,
    reader: Reader | None = None,
) -> Reader:  # fmt: skip
    """A reader.

    Args:
        edits: of exactly the reading layers of `shape`.
        found: prompts with answers.
        owners: the edit that answers each of them.
        rivals: wrong edits that the router likes for a prompt (by its place in `found`), best first.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    if reader is None:
        reader = Reader(shape, decoder.num_heads)
        principal_start(reader, edits)
    reader.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(reader.parameters(), settings.rate, weight_decay=0.0, betas=(0.9, 0.98))
    for step in range(settings.steps):
        set_rate(optimizer, settings.rate, step, settings.steps, 20)
        chosen = rng.sample(range(len(owners)), min(settings.batch, len(owners)))
        picks, logits = [], []
        for i in chosen:
            wrong = [e for e in rivals(i) if e != owners[i]][: rng.choice([0, 0, 1, settings.rivals])]
            row = [(owners[i], rng.uniform(1.0, 8.0)), *((e, rng.uniform(-4.0, 3.0)) for e in wrong)]
            picks.append([e for e, _ in row])
            logits.append([x for _, x in row])
        answers, labels = answer_logits(decoder, reader, shape, found, chosen, gather(edits, picks, logits))
        loss = F.cross_entropy(answers, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        tick(step + 1, settings.steps, loss.item())
    return reader.eval().requires_grad_(False)
