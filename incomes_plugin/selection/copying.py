"""Copying: from the last prompt token on, the next token is the base's own or is copied from a picked edit.

    p(v) ~ a_0 p_base(v) e^(y_v) + sum over s with token v of a_s  a = softmax(z_0, z_1, ..., z_S)
    z_0 = w . h / sqrt(N) + w_0                                    the zero-gist: nothing is copied
    z_s = (Q h / sqrt(N)) . k_s / sqrt(C) + m[matches of s] + u[cover of s] + v[cover of the pick, matches of s] + b_s
    k_s = (A c[place of s] + B c[place before s]) / sqrt(2 R)
    y_v = max over s with token v of y[cover of the pick, matches of s]

s runs over the spellings of the picked edits (`gist/spelling.py`), c is a gist's latents, whitened, and h the hidden
state of N numbers behind the last norm, scaled so that their mean square is 1. A token matches as far as what the
answer has said last is what goes before it in the edit. The cover of s is 0 until the answer says its place in the
edit, and then 1 and as many as matched, the most there were; that of a pick is the largest of its places. v and y keep
an answer from two edits from saying one of them twice, v in what is copied and y in what the base says, which has read
both: y_v is 0 for a token of no pick, and where there is one pick alone. b is the verifier's log-probability that the
edit applies.

Reading says where in an edit the answer stands; what a head takes from there is too little to spell a name by. This is
a pointer-sentinel mixture (arXiv 1609.07843) with the zero-gist as sentinel, over gists in place of earlier hidden
states.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from incomes_plugin.gist.spelling import SPELLED, Spelling


class Mixture(NamedTuple):
    """What each row takes from where.

    Attributes:
        nothing: `[n]`, log a_0.
        copied: `[n, S]`, log a_s.
        held: `[n, S]`, y of each place; -inf for a pad.
    """

    nothing: torch.Tensor
    copied: torch.Tensor
    held: torch.Tensor


class Copier(nn.Module):
    """Trained tensors of copying; see the module docstring.

    Args:
        hidden_dim: N of the base.
        latent_dim: R of the gists.
        copy_dim: C.

    Attributes:
        query: `[C, N]`, Q.
        key, before: `[C, R]`, A and B.
        sentinel: `[N]`, w.
        sentinel_bias: `[]`, w_0.
        match: `[3]`; the first n of them together are m of n matches.
        again: `[4]`; the first n of them together are u of a cover of n.
        pick_again, held: `[4, 4]`; the first n rows together are v and y of a pick's cover of n, for 0 to 3 matches.
        spread: `[R]`, by which latents are whitened.
    """

    spread: torch.Tensor

    def __init__(self, hidden_dim: int, latent_dim: int, copy_dim: int = 96) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(copy_dim, hidden_dim))
        self.key = nn.Parameter(torch.randn(copy_dim, latent_dim))
        self.before = nn.Parameter(torch.randn(copy_dim, latent_dim))
        self.sentinel = nn.Parameter(torch.zeros(hidden_dim))
        self.sentinel_bias = nn.Parameter(torch.tensor(6.0))
        self.match = nn.Parameter(torch.tensor([1.0] + [0.5] * (SPELLED - 1)))
        self.again = nn.Parameter(torch.zeros(SPELLED + 1))
        self.pick_again = nn.Parameter(torch.zeros(SPELLED + 1, SPELLED + 1))
        self.held = nn.Parameter(torch.zeros(SPELLED + 1, SPELLED + 1))
        self.register_buffer("spread", torch.ones(latent_dim))

    @property
    def config(self) -> dict[str, int]:
        """Arguments beside the width of latents."""
        return {"hidden_dim": self.query.shape[1], "copy_dim": self.query.shape[0]}

    def keys(self, latents: torch.Tensor, places: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """k `[S, C]` float32.

        Args:
            latents: `[E, R]` of the edit's tokens.
            places, before: `[S]` int64 rows of them (`Spelling.places`, `Spelling.places_before`); -1 for none.
        """
        white = latents.float() / (self.spread * math.sqrt(2 * latents.shape[-1]))
        at, ahead = white @ self.key.T, F.pad(white @ self.before.T, (0, 0, 0, 1))
        return at[places] + ahead[before]

    def keys_of(self, latents: torch.Tensor, spelling: Spelling) -> torch.Tensor:
        """k `[S, C]` float32 of an edit with latents `[E, R]`, on their device."""
        places, before = (part.to(latents.device) for part in (spelling.places.long(), spelling.places_before()))
        return self.keys(latents, places, before)

    def asks(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Q h / sqrt(N C) `[n, C]` and z_0 `[n]` of hidden states `[n, N]`."""
        h = F.rms_norm(hidden.float(), hidden.shape[-1:]) / math.sqrt(hidden.shape[-1])
        return h @ self.query.T / math.sqrt(self.query.shape[0]), h @ self.sentinel + self.sentinel_bias

    def steps(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """m `[4]`, u `[5]`, v and y `[5, 4]` of 0, 1, 2, ..."""
        return _steps(self.match), _steps(self.again), _steps(self.pick_again), _steps(self.held)

    @torch.no_grad()
    def against_repeats(self, amount: float) -> None:
        """Lower v and y by `amount` where an answer begins a pick anew: where less matches than it has said of that
        pick in a row, three tokens at most."""
        for table in (self.pick_again, self.held):
            for matches in range(SPELLED):
                table[matches, matches] -= amount  # for every cover beyond, which is the sum of the rows up to it

    def weights(
        self, hidden: torch.Tensor, keys: torch.Tensor, table: torch.Tensor, bias: torch.Tensor, said: torch.Tensor,
        cover: torch.Tensor,
    ) -> Mixture:  # fmt: skip
        """The mixture of n rows.

        Args:
            hidden: `[n, N]` behind the last norm.
            keys: `[n, S, C]` or `[S, C]`, k.
            table: `[n, S, 6]` or `[S, 6]` int64 (`Spelling.table`, `joined`).
            bias: `[n, S]` or `[S]` float32, b; -inf where there is no token.
            said: `[n, 3]` int64: what the answer has said last, the latest first; -1 for nothing.
            cover: `[n, S]` int64 of each place, see `covering`.
        """
        query, sentinel = self.asks(hidden)
        match, again, pick_again, held = self.steps()
        matches = _agreeing(table, said).sum(-1)
        covered = again[cover.gather(-1, _column(table, -2, cover))]
        picks = _column(table, -1, cover)
        of_pick = torch.zeros_like(cover).scatter_reduce(-1, picks, cover, "amax").gather(-1, picks)
        covered = covered + pick_again[of_pick, matches]
        scores = torch.einsum("nc,...sc->ns", query, keys) if keys.dim() == 2 else (keys @ query[..., None])[..., 0]
        logs = torch.cat([sentinel[:, None], scores + match[matches] + covered + bias], -1).log_softmax(-1)
        several = picks.amax(-1, keepdim=True) > 0
        own = held[of_pick, matches].where(several, 0.0).masked_fill(_column(table, 0, cover) < 0, -torch.inf)
        return Mixture(logs[:, 0], logs[:, 1:], own)


def covering(cover: torch.Tensor, table: torch.Tensor, said: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """The cover `[n, S]` when n answers have said one token more.

    Args:
        cover: `[n, S]` int64 of each place of the edits, before that; 0 at the beginning.
        table: `[n, S, 6]` or `[S, 6]`.
        said: `[n, 3]`, what each answer said last before that.
        token: `[n]`, what it says now.
    """
    found = (table[..., 0] == token[:, None]) * (1 + _agreeing(table, said).sum(-1))
    return cover.scatter_reduce(-1, _column(table, -2, cover), found, "amax")


def _agreeing(table: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    """`[n, S, 3]` int64: 1 for each token before that the answer has said so, up to the first that differs."""
    return (table[..., 1 : 1 + SPELLED] == said[:, None]).cumprod(-1)


def _column(table: torch.Tensor, number: int, cover: torch.Tensor) -> torch.Tensor:
    return table[..., number].expand(cover.shape)


def _steps(each: torch.Tensor) -> torch.Tensor:
    """The sum of the first n, for n from 0 on."""
    return torch.cat([torch.zeros_like(each[:1]), each.cumsum(0)])


def mixed(logits: torch.Tensor, shares: Mixture, tokens: torch.Tensor) -> torch.Tensor:
    """Logits `[n, V]` float32 of the mixture: their softmax is p.

    They lie as high as the base's, and where nothing is copied or held back they are the base's: a repetition penalty,
    which divides logits above 0 and multiplies those below, does not become another one by copying.

    Args:
        logits: `[n, V]` of the base.
        shares: what these rows take from where.
        tokens: `[n, S]` int64; -1 for a pad. The first place is none.
    """
    logits = logits.float()
    total = logits.logsumexp(-1, keepdim=True)
    tokens, order = tokens.where(tokens >= 0, tokens[:, :1]).sort(dim=-1, stable=True)
    of_token = over_same_tokens(shares.copied.gather(-1, order), tokens, torch.logaddexp) + total
    held = over_same_tokens(shares.held.gather(-1, order), tokens, torch.maximum)
    own = logits + shares.nothing[:, None]
    return own.scatter(-1, tokens, torch.logaddexp(own.gather(-1, tokens) + held, of_token))


def over_same_tokens(
    numbers: torch.Tensor, tokens: torch.Tensor, join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The numbers of all places of the same token joined `[n, S]`, at each of them.

    Each place takes up what lies 1, 2, 4, ... before it: S log S steps a row, always in the same order. A table of all
    pairs is 26 MB for each row of a batch whose longest request copies from four edits of 256 tokens. Atomic additions
    on a GPU come in any order, and ranks that sample for themselves must agree.

    Args:
        numbers: `[n, S]`.
        tokens: `[n, S]`, ascending.
    """
    distance = 1
    while distance < tokens.shape[-1]:
        same = tokens[:, distance:] == tokens[:, :-distance]
        more = join(numbers[:, distance:], numbers[:, :-distance])
        numbers = torch.cat([numbers[:, :distance], torch.where(same, more, numbers[:, distance:])], -1)
        distance *= 2
    last = torch.searchsorted(tokens, tokens, right=True) - 1
    return numbers.gather(-1, last)
