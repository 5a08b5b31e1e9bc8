"""What training of copying works on: spellings of all edits, those of a batch's picks, and the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from incomes_plugin.gist.spelling import NOTHING, SPELLED, Spelling, joined
from incomes_plugin.lab.adapt.features import Ragged
from incomes_plugin.selection.copying import Copier, covering, over_same_tokens


@dataclass(frozen=True)
class SpelledPicks:
    """Spellings of the picks of each row of a batch, padded to the longest.

    Attributes:
        keys: `[B, S, C]`.
        table: `[B, S, 6]` int64; -1 for the token of a pad.
        bias: `[B, S]`, -inf for a pad.
    """

    keys: torch.Tensor
    table: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True)
class SpelledEdits:
    """Spellings of all edits.

    Attributes:
        latents: `[E, R]` each.
        spellings: of each.
    """

    latents: Ragged
    spellings: Sequence[Spelling]

    def of(self, copier: Copier, picks: Sequence[Sequence[int]], logits: Sequence[Sequence[float]]) -> SpelledPicks:
        """Those of each row's picks; `logits` are the verifier's."""
        width = max(sum(len(self.spellings[e].tokens) for e in row) for row in picks)
        table = torch.tensor([-1, *[NOTHING] * SPELLED, 0, 0]).repeat(len(picks), width, 1)
        bias = torch.full((len(picks), width), -torch.inf)
        keys = []
        for b, row in enumerate(picks):
            own, place = [], 0
            for edit, logit in zip(row, logits[b], strict=True):
                spelling = self.spellings[edit]
                part = slice(place, place + len(spelling.tokens))
                bias[b, part] = F.logsigmoid(torch.tensor(logit))
                own.append(copier.keys_of(self.latents[edit], spelling))
                place = part.stop
            table[b, :place] = joined([self.spellings[edit].table() for edit in row])
            keys.append(F.pad(torch.cat(own), (0, 0, 0, width - place)))
        return SpelledPicks(torch.stack(keys), table, bias)


def covered(table: torch.Tensor, said: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    """Cover `[n, S]` of the picked edits' places at each of n rows, of answers one after the other.

    Args:
        table: `[n, S, 6]`, of each row's picks.
        said: `[n, 3]`.
        prompt: `[n]`, the answer that each row belongs to.
    """
    cover = torch.zeros(table.shape[:2], dtype=torch.int64)
    for row in range(1, len(table)):
        now, last = slice(row, row + 1), slice(row - 1, row)
        if prompt[row] == prompt[row - 1]:
            cover[now] = covering(cover[last], table[now], said[last], said[now, 0])
    return cover


def said_loss(
    copier: Copier, logits: torch.Tensor, hidden: torch.Tensor, said: torch.Tensor, labels: torch.Tensor,
    picks: SpelledPicks, prompt: torch.Tensor, learned: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Mean of -log p(label) over the rows that are learned, and over those of them whose label can be copied, of what
    copying alone gives it.

    The second keeps copying from being needed only where the base with its heads fails on the edits it learns from:
    names that it has never seen are then copied as well.

    Args:
        logits: `[n, V]` float32, the base's with what it read.
        hidden: `[n, N]`, behind the last norm.
        said: `[n, 3]`.
        labels: `[n]`.
        prompt: `[n]`, the row of `picks` that each one reads.
        learned: `[n]` bool.
    """
    table = picks.table[prompt]
    cover = covered(table, said, prompt)
    shares = copier.weights(hidden, picks.keys[prompt], table, picks.bias[prompt], said, cover)
    tokens, order = table[..., 0].sort(dim=-1, stable=True)
    held = over_same_tokens(shares.held.gather(-1, order), tokens, torch.maximum)  # y of each place's token
    single = F.pad(tokens[:, 1:] != tokens[:, :-1], (0, 1), value=True) & (tokens >= 0)  # one place of each token
    base = logits.log_softmax(-1)
    taken = (base.gather(1, tokens.clamp_min(0)).exp() * (1 - held.exp())).where(single, 0.0).sum(-1)
    of_label = held.where(single & (tokens == labels[:, None]), 0.0).sum(-1)
    own = base.gather(1, labels[:, None])[:, 0] + of_label
    same = table[..., 0] == labels[:, None]
    right = shares.copied.exp().masked_fill(~same, 0.0).sum(-1)
    mixture = ((shares.nothing + own).exp() + right) / (1 - shares.nothing.exp() * taken)
    whole = -mixture[learned].clamp_min(1e-30).log().mean()
    alone = right[same.any(-1) & learned].clamp_min(1e-30).log()
    return whole, -alone.mean() if len(alone) else whole.new_zeros(())
