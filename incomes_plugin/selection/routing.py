"""Routed selection: at the first gist layer every token picks k edits; at all gist layers it chooses among those only.

    direction of a token  d = gain * A_q q          q: its un-rotated query at the first gist layer, all heads
    logit of an edit      s_e = max_j d . k_ej      k_ej: the key of its gist j there, all kv heads
    picks                 the k edits with the largest s_e; none where softmax([d . z + b, s of the picks]) prefers z
    selection             o = softmax(c [q.k_0, q.k_1 .. ] / sqrt(D)) . [0, v_1 .. ], over the entries of the picks

A token pays one product with the keys of one layer; entries of edits that it does not pick are never read. The softmax
runs over k edits whatever N is, so no rule for N is needed (docs/adr/0010). Plain tensors, no engine: training, the
reference and the engine's layer share this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

TENSORS = ("query", "zero", "bias", "gain")
"""Names of a router's tensors, in the adapter file too."""

_MOST_LOGITS = 1 << 24
"""Logits computed at once; longer prompts go in pieces."""

_CANDIDATES = 16
"""Best entries a token looks at; several may belong to one edit."""


@dataclass(frozen=True)
class Router:
    """Trained tensors and fixed rules of routing.

    Attributes:
        query: `[H * D, R]`, A_q; R = K * D.
        zero: `[R]`, z: key of the zero-gist.
        bias, gain: scalars.
        top_k: edits a token may read at once.
        threshold: a token whose zero-gist weighs this much or more picks nothing at all: its output is untouched.
        same: edits whose best entries have this cosine or more say the same; only the latest of them is read. Above 1,
            as by default, nothing does: in the default model's keys, contradictory and similar edits overlap.
    """

    query: torch.Tensor
    zero: torch.Tensor
    bias: torch.Tensor
    gain: torch.Tensor
    top_k: int = 4
    threshold: float = 0.5
    same: float = 2.0

    def detached(self) -> Router:
        """The same router without gradients."""
        return self._each(torch.Tensor.detach)

    def to(self, device: torch.device) -> Router:
        """The same router on a device, in float32."""
        return self._each(lambda tensor: tensor.to(device, torch.float32))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Router:
        return replace(self, **{name: change(getattr(self, name)) for name in TENSORS})  # type: ignore[arg-type]

    def directions(self, query: torch.Tensor) -> torch.Tensor:
        """Directions `[T, R]` of tokens from their un-rotated queries `[T, H, D]`."""
        return query.flatten(-2).float() @ self.query * self.gain

    def zero_logits(self, directions: torch.Tensor) -> torch.Tensor:
        """Logits `[T]` of the zero-gist."""
        return directions @ self.zero + self.bias


@dataclass(frozen=True)
class Routes:
    """What tokens choose from.

    Attributes:
        keys: `[n, R]`, keys of all entries at the first gist layer.
        owners: `[n]` int64, row of the edit that each entry belongs to.
        ages: `[N]` int64; of two edits that say the same the one with the larger number is the later.
    """

    keys: torch.Tensor
    owners: torch.Tensor
    ages: torch.Tensor


@dataclass(frozen=True)
class Picks:
    """What every token picked.

    Attributes:
        edits: `[T, k]` int64, row of an edit, heaviest first; any edit where fewer than k were found.
        weights: `[T, k]` float32, how much the router wants each; 0 = not picked.
        none: `[T]` float32, weight of the zero-gist before the threshold.
    """

    edits: torch.Tensor
    weights: torch.Tensor
    none: torch.Tensor


def pick(router: Router, query: torch.Tensor, routes: Routes) -> Picks:
    """Choose the edits each token reads.

    Args:
        query: `[T, H, D]`, un-rotated, of the first gist layer.
        routes: of at least one entry.
    """
    directions = router.directions(query)
    step = max(1, _MOST_LOGITS // len(routes.owners))
    parts = [_pick(router, part, routes) for part in directions.split(step)]
    return Picks(*(torch.cat([getattr(p, name) for p in parts]) for name in ("edits", "weights", "none")))


def _pick(router: Router, directions: torch.Tensor, routes: Routes) -> Picks:
    keys = routes.keys
    found = (directions.to(keys.dtype) @ keys.T).topk(min(_CANDIDATES, len(keys)), dim=-1).indices
    logits = torch.einsum("tr,tcr->tc", directions, keys[found].float())  # the choice is exact where keys are not
    logits, order = logits.sort(dim=-1, descending=True)
    found = found.gather(1, order)
    owners = routes.owners[found]
    again = (owners[:, :, None] == owners[:, None]).tril(-1).any(-1)
    logits, place = logits.masked_fill(again, -torch.inf).topk(min(router.top_k, found.shape[1]), dim=-1)
    edits, best = owners.gather(1, place), found.gather(1, place)
    weights = torch.cat([router.zero_logits(directions)[:, None], logits], dim=-1).softmax(dim=-1)
    none, weights = weights[:, 0], weights[:, 1:]
    weights = _later_wins(weights, F.normalize(keys[best].float(), dim=-1), routes.ages[edits], router.same)
    return Picks(edits, weights.masked_fill((none >= router.threshold)[:, None], 0.0), none)


def _later_wins(weights: torch.Tensor, keys: torch.Tensor, ages: torch.Tensor, same: float) -> torch.Tensor:
    """Give the weight of superseded picks to the latest pick that says the same.

    Args:
        weights: `[T, k]`.
        keys: `[T, k, R]`, the best entry's key of each pick, of length 1.
        ages: `[T, k]`.
    """
    itself = torch.eye(keys.shape[1], dtype=torch.bool, device=keys.device)
    alike = (keys @ keys.transpose(1, 2) >= same) & (weights > 0)[:, None] | itself
    latest = torch.where(alike, ages[:, None, :], -1).argmax(dim=-1)
    return torch.zeros_like(weights).scatter_add(1, latest, weights)


def read(
    query: torch.Tensor, zero_key: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, real: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Soft choice of every token and head among the zero-gist and the entries of the picked edits.

    Args:
        query: `[T, H, D]`, un-rotated, query map applied, times c / sqrt(D).
        zero_key: `[K, D]`.
        keys, values: `[T, k, G, K, D]`, entries of the picked edits.
        real: `[T, k, G]`, False for what is not there or not picked.

    Returns:
        The addition to the self-attention output `[T, H, D]`, and log weights `[T, H, 1 + k * G]` float32, zero-gist
        first.
    """
    tokens, heads, dim = query.shape
    kv_heads = len(zero_key)
    grouped = query.view(tokens, kv_heads, heads // kv_heads, dim)
    zero = torch.einsum("tkhd,kd->tkh", grouped, zero_key.to(query.dtype))[..., None]
    logits = torch.einsum("tkhd,tekd->tkhe", grouped, keys.flatten(1, 2).to(query.dtype))
    logits = logits.masked_fill(~real.flatten(1)[:, None, None], -torch.inf)
    weights = torch.cat([zero, logits], dim=-1).float().log_softmax(dim=-1)
    chosen = weights[..., 1:].exp().to(values.dtype)
    return torch.einsum("tkhe,tekd->tkhd", chosen, values.flatten(1, 2)).flatten(1, 2), weights.flatten(1, 2)


def mass(log_weights: torch.Tensor, picks: int) -> torch.Tensor:
    """Weight of each of the `picks` edits `[T, k]`, averaged over heads, from log weights `[T, H, 1 + k * G]`."""
    return log_weights[..., 1:].exp().unflatten(-1, (picks, -1)).sum(-1).mean(1)
