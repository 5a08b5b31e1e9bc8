"""Routed selection: at the first gist layer every token picks edits, at all gist layers it reads the picked ones only.

    route of an edit   r_e = A_k k / |A_k k|          k: key of the edit's route token at the first gist layer
    route of a token   r_t = A_q q / |A_q q|          q: its un-rotated query there
    weights            w = softmax([r_t . z + b, r_t . r_1 .. r_t . r_N] * gain), cut to the top k edits

A pool of N edits costs one product with `[N, R]` a token; entries of edits that are not picked are never read. The
weights of the zero-gist and the k best edits are normalised among themselves, so no rule for N is needed
(docs/adr/0010). Plain tensors, no engine: training, the reference and the engine's layer share this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

TENSORS = ("query", "key", "zero", "bias", "gain")
"""Names of a router's tensors, in the adapter file too."""


@dataclass(frozen=True)
class Router:
    """Trained tensors and fixed rules of routing.

    Attributes:
        query: `[H * D, R]`, A_q.
        key: `[K * D, R]`, A_k; R = K * D, so that a route fits where the gist format keeps the route token's key.
        zero: `[R]`, z: route of the zero-gist.
        bias, gain: scalars b and the inverse temperature.
        top_k: edits a token may read at once.
        threshold: a token whose zero-gist weighs this much or more reads nothing at all: its output is untouched.
        same: edits whose routes have this cosine or more state the same thing; only the latest of them is read.
    """

    query: torch.Tensor
    key: torch.Tensor
    zero: torch.Tensor
    bias: torch.Tensor
    gain: torch.Tensor
    top_k: int = 4
    threshold: float = 0.5
    same: float = 0.95

    def detached(self) -> Router:
        """The same router without gradients."""
        return self._each(torch.Tensor.detach)

    def to(self, device: torch.device) -> Router:
        """The same router on a device, in float32."""
        return self._each(lambda tensor: tensor.to(device, torch.float32))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Router:
        return replace(self, **{name: change(getattr(self, name)) for name in TENSORS})  # type: ignore[arg-type]

    def routes(self, keys: torch.Tensor) -> torch.Tensor:
        """Routes `[n, R]` of edits from their route tokens' keys `[n, K, D]`."""
        return F.normalize(keys.flatten(-2).float() @ self.key, dim=-1)

    def directions(self, query: torch.Tensor) -> torch.Tensor:
        """Routes `[T, R]` of tokens from their un-rotated queries `[T, H, D]`."""
        return F.normalize(query.flatten(-2).float() @ self.query, dim=-1)

    def zero_logits(self, directions: torch.Tensor) -> torch.Tensor:
        """Logits `[T]` of the zero-gist."""
        return (directions @ self.zero + self.bias) * self.gain


@dataclass(frozen=True)
class Picks:
    """What every token picked.

    Attributes:
        edits: `[T, k]` int64, index among the routes, heaviest first.
        weights: `[T, k]` float32, 0 where nothing is read.
        none: `[T]` float32, weight of the zero-gist before the threshold.
    """

    edits: torch.Tensor
    weights: torch.Tensor
    none: torch.Tensor


def pick(router: Router, query: torch.Tensor, routes: torch.Tensor, ages: torch.Tensor) -> Picks:
    """Choose the edits each token reads.

    Args:
        query: `[T, H, D]`, un-rotated, of the first gist layer.
        routes: `[N, R]`, N >= 1.
        ages: `[N]` int64; of two edits that say the same the one with the larger number is the later.
    """
    directions = router.directions(query)
    logits, edits = (directions @ routes.T.float() * router.gain).topk(min(router.top_k, len(routes)), dim=-1)
    weights = torch.cat([router.zero_logits(directions)[:, None], logits], dim=-1).softmax(dim=-1)
    none, weights = weights[:, 0], weights[:, 1:]
    weights = _later_wins(weights, routes[edits].float(), ages[edits], router.same)
    return Picks(edits, weights.masked_fill((none >= router.threshold)[:, None], 0.0), none)


def _later_wins(weights: torch.Tensor, routes: torch.Tensor, ages: torch.Tensor, same: float) -> torch.Tensor:
    """Give the weight of superseded picks to the latest pick that says the same.

    Args:
        weights: `[T, k]`.
        routes: `[T, k, R]` of the picks.
        ages: `[T, k]`.
    """
    alike = routes @ routes.transpose(1, 2) >= same
    latest = torch.where(alike, ages[:, None, :], -1).argmax(dim=-1)
    return torch.zeros_like(weights).scatter_add(1, latest, weights)


def read(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, real: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Addition `[T, H, D]` to the self-attention output: each head attends within each picked edit.

    Args:
        query: `[T, H, D]`, un-rotated, query map applied, times the read scale over sqrt(D).
        keys, values: `[T, k, G, K, D]`, entries of the picked edits.
        real: `[T, k, G]`, False where an edit has fewer entries.
        weights: `[T, k]`.
    """
    inner = attend(query, keys, real)
    return combine(inner * weights[:, None, None, :, None], values)


def attend(query: torch.Tensor, keys: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Softmax within each edit, `[T, K, H / K, k, G]` float32."""
    tokens, heads, dim = query.shape
    kv_heads = keys.shape[3]
    grouped = query.view(tokens, kv_heads, heads // kv_heads, dim)
    logits = torch.einsum("tkhd,tegkd->tkheg", grouped, keys.to(query.dtype)).float()
    return logits.masked_fill(~real[:, None, None], -torch.inf).softmax(dim=-1)


def combine(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Sum of values `[T, H, D]` under weights `[T, K, H / K, k, G]`."""
    return torch.einsum("tkheg,tegkd->tkhd", weights.to(values.dtype), values).flatten(1, 2)
