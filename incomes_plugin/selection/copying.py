"""Copying: from the last prompt token on, the next token is the base's own or is copied from a picked edit.

    p(v) = a_0 p_base(v) + sum over s with token v of a_s          a = softmax(z_0, z_1, ..., z_S)
    z_0 = w . h / sqrt(N) + w_0                                    the zero-gist: nothing is copied
    z_s = (Q h / sqrt(N)) . k_s / sqrt(C) + m[matches of s] + u[cover of s] + v[cover of the pick of s] + b_s
    k_s = (A c[place of s] + B c[place before s]) / sqrt(2 R)

s runs over the spellings of the picked edits (`gist/spelling.py`), c is a gist's latents, whitened, and h the hidden
state of N numbers behind the last norm, scaled so that their mean square is 1. A token matches as far as what the
answer has said last is what goes before it in the edit. The cover of s is 0 until the answer says its place in the
edit, and then 1 and as many as matched, the most there were; that of a pick is the largest of its places, and v counts
only where nothing matches, where something else of an edit begins: an answer from two edits does not say one of them
twice. b is the verifier's log-probability that the edit applies.

Reading says where in an edit the answer stands; what a head takes from there is too little to spell a name by. This is
a pointer-sentinel mixture (arXiv 1609.07843) with the zero-gist as sentinel, over gists in place of earlier hidden
states.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from incomes_plugin.gist.spelling import SPELLED, Spelling


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
        again, pick_again: `[4]`; the first n of them together are u and v of a cover of n.
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
        self.pick_again = nn.Parameter(torch.zeros(SPELLED + 1))
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

    def steps(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """m `[4]`, u and v `[5]` of 0, 1, 2, ..."""
        return _steps(self.match), _steps(self.again), _steps(self.pick_again)

    def weights(
        self, hidden: torch.Tensor, keys: torch.Tensor, table: torch.Tensor, bias: torch.Tensor, said: torch.Tensor,
        cover: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """log a_0 `[n]` and log a_s `[n, S]` of n rows.

        Args:
            hidden: `[n, N]` behind the last norm.
            keys: `[n, S, C]` or `[S, C]`, k.
            table: `[n, S, 6]` or `[S, 6]` int64 (`Spelling.table`, `joined`).
            bias: `[n, S]` or `[S]` float32, b; -inf where there is no token.
            said: `[n, 3]` int64: what the answer has said last, the latest first; -1 for nothing.
            cover: `[n, S]` int64 of each place, see `covering`.
        """
        query, sentinel = self.asks(hidden)
        match, again, pick_again = self.steps()
        agreeing = _agreeing(table, said)
        matches = match[agreeing.sum(-1)]
        covered = again[cover.gather(-1, _column(table, -2, cover))]
        picks = _column(table, -1, cover)
        of_pick = torch.zeros_like(cover).scatter_reduce(-1, picks, cover, "amax").gather(-1, picks)
        covered = covered + pick_again[of_pick * (1 - agreeing[..., 0])]
        scores = torch.einsum("nc,...sc->ns", query, keys) if keys.dim() == 2 else (keys @ query[..., None])[..., 0]
        logs = torch.cat([sentinel[:, None], scores + matches + covered + bias], -1).log_softmax(-1)
        return logs[:, 0], logs[:, 1:]


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
    return F.pad(each.cumsum(0), (1, 0))


def mixed(logits: torch.Tensor, nothing: torch.Tensor, copied: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Logits `[n, V]` float32 of the mixture: their softmax is p.

    They lie as high as the base's, and where nothing is copied they are the base's: a repetition penalty, which divides
    logits above 0 and multiplies those below, does not become another one by copying.

    Args:
        logits: `[n, V]` of the base.
        nothing, copied: log a_0 `[n]` and log a_s `[n, S]`.
        tokens: `[n, S]` int64; any id where a_s is 0.
    """
    logits = logits.float()
    total = logits.logsumexp(-1, keepdim=True)
    tokens, order = tokens.sort(dim=-1, stable=True)
    of_token = _summed(copied.gather(-1, order), tokens) + total
    own = logits + nothing[:, None]
    return own.scatter(-1, tokens, torch.logaddexp(own.gather(-1, tokens), of_token))


def _summed(logs: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log of the sum over all places of the same token `[n, S]`, at each of them.

    Each place takes up what lies 1, 2, 4, ... before it: S log S additions a row, always in the same order. A table of
    all pairs is 26 MB for each row of a batch whose longest request copies from four edits of 256 tokens. Atomic
    additions on a GPU come in any order, and ranks that sample for themselves must agree.

    Args:
        logs: `[n, S]`.
        tokens: `[n, S]`, ascending.
    """
    distance = 1
    while distance < tokens.shape[-1]:
        same = tokens[:, distance:] == tokens[:, :-distance]
        more = torch.logaddexp(logs[:, distance:], logs[:, :-distance])
        logs = torch.cat([logs[:, :distance], torch.where(same, more, logs[:, distance:])], -1)
        distance *= 2
    last = torch.searchsorted(tokens, tokens, right=True) - 1
    return logs.gather(-1, last)
