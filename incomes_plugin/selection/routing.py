"""Routed selection: at the first gist layer every token picks k edits; at all gist layers it chooses among those only.

    direction of a token  d = gain * A_q q + B gelu(C q + c)    q: its un-rotated query at the first gist layer, all
                                                    heads; the second term is fitted among thousands of edits
    logit of an edit      s_e = max_j d . k_ej      k_ej: the key of its gist j there, all kv heads
    picks                 the k edits with the largest s_e; none where softmax([d . z + b + g log N, s of the picks])
                          gives z the threshold or more
    selection             o = softmax([c q.k_0, c q.k_1 + b_1, ..]) . [0, v_1, ..], over the entries of the picks, where
                          b_e = s_e - max s is the router's prior; for picks about the same as the first it gives way
                          to r n_e, n_e the number of older ones among them: of two that contradict the later wins

A token pays one product with the keys of one layer; entries of edits that it does not pick are never read. The softmax
runs over k edits whatever N is, so no rule for N is needed (docs/adr/0010). Plain tensors, no engine: training, the
reference and the engine's layer share this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
import torch.nn.functional as F

TENSORS = ("query", "zero", "bias", "gain")
"""Names of a router's tensors, in the adapter file too."""

CORRECTION = ("hidden", "hidden_bias", "correction")
"""Names of the tensors that some routers have besides."""

CROWD = 1000
"""Edits among which a router is calibrated; see `Router.growth`."""

_ALIKE, _SAME = 1.5, 0.965
"""Picks are about the same as the first one if their logits are within so many nats of its logit, and the keys of their
best entries have this cosine or more."""

_MOST_LOGITS = 1 << 24
"""Logits computed at once; longer prompts go in pieces."""

_CANDIDATES = 16
"""Best entries a token looks at; several may belong to one edit."""

_NOTHING = -1e30
"""Logit of an entry that is not there."""


@dataclass(frozen=True)
class Router:
    """Trained tensors and fixed rules of routing.

    Attributes:
        query: `[H * D, R]`, A_q; R = K * D.
        zero: `[R]`, z: key of the zero-gist.
        bias, gain: scalars.
        hidden, hidden_bias, correction: `[H * D, F]`, `[F]` and `[F, R]`, C, c and B; None = no such term.
        top_k: edits a token may read at once.
        threshold: a token whose zero-gist weighs this much or more picks nothing at all: its output is untouched.
        growth: what the zero-gist's logit gains for every e-fold of edits beyond `CROWD`: the best of many wrong edits
            grows with their number, the right one does not.
        recency: what a pick's logits gain, in every gist layer and head, for every older pick about the same; see
            `preference`.
    """

    query: torch.Tensor
    zero: torch.Tensor
    bias: torch.Tensor
    gain: torch.Tensor
    top_k: int = 4
    threshold: float = 0.5
    growth: float = 0.0
    recency: float = 0.0
    hidden: torch.Tensor | None = None
    hidden_bias: torch.Tensor | None = None
    correction: torch.Tensor | None = None

    def detached(self) -> Router:
        """The same router without gradients."""
        return self._each(torch.Tensor.detach)

    def to(self, device: torch.device) -> Router:
        """The same router on a device, in float32."""
        return self._each(lambda tensor: tensor.to(device, torch.float32))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Router:
        return replace(self, **{name: change(tensor) for name, tensor in self.tensors().items()})  # type: ignore[arg-type]

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors that are there, by name."""
        found = {name: getattr(self, name) for name in TENSORS + CORRECTION}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def directions(self, query: torch.Tensor) -> torch.Tensor:
        """Directions `[T, R]` of tokens from their un-rotated queries `[T, H, D]`."""
        flat = query.flatten(-2).float()
        linear = flat @ self.query * self.gain
        if self.hidden is None or self.hidden_bias is None or self.correction is None:
            return linear
        return linear + F.gelu(flat @ self.hidden + self.hidden_bias) @ self.correction

    def preference(self, num_edits: int) -> float:
        """Logits for being the later of two picks that look the same, among `num_edits` edits.

        A log-odds that the two contradict one another and are not just similar: similar ones grow with N, so it falls
        with log N beyond `CROWD`, down to 0.
        """
        return max(0.0, self.recency - math.log(max(1.0, num_edits / CROWD)))

    def zero_logits(self, directions: torch.Tensor, num_edits: int) -> torch.Tensor:
        """Logits `[T]` of the zero-gist among `num_edits` edits."""
        crowd = math.log(max(1.0, num_edits / CROWD))
        return directions @ self.zero + self.bias + self.growth * crowd


class Preselection(Protocol):
    """Names a token's candidates without a search of all entries (`facts/gate/memory.py`)."""

    def threshold(self, num_edits: int) -> float:
        """As the router's, among `num_edits` edits; the lower of the two holds."""
        ...

    def find(self, directions: torch.Tensor, zero: torch.Tensor, keys: torch.Tensor, count: int) -> torch.Tensor:
        """Places `[T, count]` of the best entries with `keys` `[n, R]`, -1 where there are fewer.

        Args:
            directions: `[T, R]`.
            zero: `[T]`, zero-gist's logits, before they grow with N.
        """
        ...


@dataclass(frozen=True)
class Routes:
    """What tokens choose from.

    Attributes:
        keys: `[n, R]`, keys of all entries at the first gist layer.
        owners: `[n]` int64, row of the edit that each entry belongs to.
        ages: `[N]` int64; of two edits that contradict one another the one with the larger number is the later.
        preselection: names the candidates; None = all entries are searched.
    """

    keys: torch.Tensor
    owners: torch.Tensor
    ages: torch.Tensor
    preselection: Preselection | None = None


@dataclass(frozen=True)
class Picks:
    """What every token picked.

    Attributes:
        edits: `[T, k]` int64, row of an edit, heaviest first; any edit where fewer than k were found.
        weights: `[T, k]` float32, how much the router wants each; 0 = not picked.
        none: `[T]` float32, weight of the zero-gist before the threshold.
        bias: `[T, k]` float32, logits that all entries of a pick gain in every gist layer and head.
    """

    edits: torch.Tensor
    weights: torch.Tensor
    none: torch.Tensor
    bias: torch.Tensor

    def of(self, tokens: torch.Tensor) -> Picks:
        """The picks of some of the tokens."""
        return Picks(*(getattr(self, field.name)[tokens] for field in fields(self)))


def pick(router: Router, query: torch.Tensor, routes: Routes) -> Picks:
    """Choose the edits each token reads.

    Args:
        query: `[T, H, D]`, un-rotated, of the first gist layer.
        routes: of at least one entry.
    """
    directions = router.directions(query)
    step = max(1, _MOST_LOGITS // len(routes.owners))
    parts = [choose(router, part, routes) for part in directions.split(step)]
    return Picks(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Picks)))


def choose(router: Router, directions: torch.Tensor, routes: Routes) -> Picks:
    """The same from directions `[T, R]`, all at once."""
    keys, threshold = routes.keys, router.threshold
    count = min(_CANDIDATES, len(keys))
    if routes.preselection is None:
        found = (directions.to(keys.dtype) @ keys.T).topk(count, dim=-1).indices
    else:
        threshold = min(threshold, routes.preselection.threshold(len(routes.ages)))
        found = routes.preselection.find(directions, router.zero_logits(directions, 0), keys, count)
    missing, found = found < 0, found.clamp_min(0)
    logits = torch.einsum("tr,tcr->tc", directions, keys[found].float())  # the choice is exact where keys are not
    logits = logits.masked_fill(missing, _NOTHING)
    logits, order = logits.sort(dim=-1, descending=True)
    found = found.gather(1, order)
    owners = routes.owners[found]
    again = (owners[:, :, None] == owners[:, None]).tril(-1).any(-1)
    logits, place = logits.masked_fill(again, _NOTHING).topk(min(router.top_k, found.shape[1]), dim=-1)
    edits, best = owners.gather(1, place), keys[found.gather(1, place)].float()
    zero = router.zero_logits(directions, len(routes.ages))
    weights = torch.cat([zero[:, None], logits], dim=-1).softmax(dim=-1)
    none, weights = weights[:, 0], weights[:, 1:]
    weights = weights.masked_fill((none >= threshold)[:, None], 0.0)
    alike = about_the_same(logits, best) & (weights > 0)
    prior = bias(logits, alike, routes.ages[edits], router.preference(len(routes.ages)), router.recency)
    return Picks(edits, weights, none, prior)


def about_the_same(logits: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Which picks are about the same as the first one, `[T, k]`: edits that contradict one another look like that.

    Args:
        logits: `[T, k]`, largest first.
        keys: `[T, k, R]`, of the best entry of each pick.
    """
    cosines = F.cosine_similarity(keys, keys[:, :1], dim=-1)
    return (logits >= logits[:, :1] - _ALIKE) & (cosines >= _SAME)


def bias(
    logits: torch.Tensor, alike: torch.Tensor, ages: torch.Tensor, preference: float, recency: float
) -> torch.Tensor:
    """What the picks' entries gain `[T, k]`: the router's own logits, or where picks are about the same their age.

    Args:
        logits: `[T, k]`, largest first.
        alike: `[T, k]`, picks about the same as the first one.
        ages: `[T, k]`.
        preference: logits for every older pick about the same; as it falls from `recency` to 0, which of them the
            router wants more counts again.
    """
    forgotten = preference / recency if recency else 0.0
    prior = (logits - logits[:, :1]) * (1 - forgotten * alike.float())
    return prior + preference * age_rank(ages, alike)


def age_rank(ages: torch.Tensor, alike: torch.Tensor) -> torch.Tensor:
    """How many older picks about the same each pick has, `[T, k]` float32.

    Args:
        ages: `[T, k]`, larger is later.
        alike: `[T, k]`, picks about the same as the first one; the others neither count nor gain.
    """
    older = (ages[:, None, :] < ages[:, :, None]) & alike[:, None, :] & alike[:, :, None]
    return older.sum(dim=-1).float()


def read(
    query: torch.Tensor,
    zero_key: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    real: torch.Tensor,
    bias: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Soft choice of every token and head among the zero-gist and the entries of the picked edits.

    Args:
        query: `[T, H, D]`, un-rotated, query map applied, times c / sqrt(D).
        zero_key: `[K, D]`.
        keys, values: `[T, k, G, K, D]`, entries of the picked edits.
        real: `[T, k, G]`, False for what is not there or not picked.
        bias: `[T, k]`, logits added to all entries of a pick.

    Returns:
        The addition to the self-attention output `[T, H, D]`, and log weights `[T, H, 1 + k * G]` float32, zero-gist
        first.
    """
    tokens, heads, dim = query.shape
    kv_heads = len(zero_key)
    grouped = query.view(tokens, kv_heads, heads // kv_heads, dim)
    zero = torch.einsum("tkhd,kd->tkh", grouped, zero_key.to(query.dtype))[..., None]
    logits = torch.einsum("tkhd,tekd->tkhe", grouped, keys.flatten(1, 2).to(query.dtype))
    logits = logits + bias.repeat_interleave(real.shape[2], dim=1)[:, None, None].to(logits.dtype)
    logits = logits.masked_fill(~real.flatten(1)[:, None, None], -torch.inf)
    weights = torch.cat([zero, logits], dim=-1).float().log_softmax(dim=-1)
    chosen = weights[..., 1:].exp().to(values.dtype)
    return torch.einsum("tkhe,tekd->tkhd", chosen, values.flatten(1, 2)).flatten(1, 2), weights.flatten(1, 2)


def mass(log_weights: torch.Tensor, picks: int) -> torch.Tensor:
    """Weight of each of the `picks` edits `[T, k]`, averaged over heads, from log weights `[T, H, 1 + k * G]`."""
    return log_weights[..., 1:].exp().unflatten(-1, (picks, -1)).sum(-1).mean(1)
