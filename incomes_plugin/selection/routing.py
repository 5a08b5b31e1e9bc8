"""Routing: which edits a question may be about, by late interaction between its tokens and every edit's tokens.

    score of an edit    s_e = sum_t w_t max_j cos(A q_t, B k_ej)

t runs over the question's tokens, j over the edit's. q_t and k_ej are features: the keys of a few layers of the frozen
model, before rotary embedding, standardised. The same words in similar contexts have similar
features. w_t, the weight of a
token, is a small net of its features and of how far from the question's end it stands. The form is ColBERT's
(arXiv 2004.12832); A, B and w are trained (`lab/adapt`). A score costs T x E products and needs no engine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from incomes_plugin.selection.token_index import ArenaIndex

QUESTION_TOKENS = 64
"""Most tokens of a question that routing looks at: the last ones."""

EDIT_TOKENS = 64
"""Most tokens of an edit that the verifier looks at: the ones most like the question's."""

_DISTANCES = 8
"""Buckets of a token's distance from the question's end, by powers of two."""

_TOKENS_AT_ONCE = 1 << 17
"""Route keys that are compared at once, so that a request needs no more than tens of megabytes for the result."""

_TOKENS_AT_ONCE_ON_CPU = 1 << 14
"""The same on a CPU, where the cosines shall stay in the second-level cache."""


class Router(nn.Module):
    """Trained tensors of routing; see the module docstring.

    Args:
        feature_dim: F.
        route_dim: R, numbers of a route key.
        hidden_dim: width of the net behind w.
    """

    def __init__(self, feature_dim: int, route_dim: int = 128, hidden_dim: int = 96) -> None:
        super().__init__()
        self.query = nn.Linear(feature_dim, route_dim)
        self.key = nn.Linear(feature_dim, route_dim)
        self.distance = nn.Embedding(_DISTANCES, hidden_dim)
        self.inner = nn.Linear(feature_dim, hidden_dim)
        self.outer = nn.Linear(hidden_dim, 1)
        self.sharpness = nn.Parameter(torch.tensor(2.0))

    def directions(self, features: torch.Tensor) -> torch.Tensor:
        """Unit vectors `[..., T, R]` of a question's features `[..., T, F]`."""
        return F.normalize(self.query(features), dim=-1)

    def route_keys(self, features: torch.Tensor) -> torch.Tensor:
        """Unit vectors `[..., E, R]` of an edit's features `[..., E, F]`."""
        return F.normalize(self.key(features), dim=-1)

    def weights(self, features: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
        """Weights w `[..., T]` of a question's tokens.

        Args:
            features: `[..., T, F]`.
            distances: `[..., T]` int64, 0 for the last token of the question.
        """
        bucket = (distances + 1).float().log2().floor().long().clamp(0, _DISTANCES - 1)
        hidden = F.gelu(self.inner(features) + self.distance(bucket))
        return F.softplus(self.outer(hidden))[..., 0] * self.sharpness.exp()


@dataclass(frozen=True)
class RouteKeys:
    """Route keys of N edits in rows of W tokens: an edit takes as many rows as it needs.

    Attributes:
        keys: `[M, W, R]`, unit vectors; a row with fewer tokens repeats its last one, which changes no maximum.
        owners: `[M]` int64, edit of each row, N or more for a row of no edit; None where every edit has just its row.
        num_edits: N.
        index: of the arena that `keys` are the beginning of; None = a question is compared with all edits.
    """

    keys: torch.Tensor
    owners: torch.Tensor | None
    num_edits: int
    index: ArenaIndex | None = None


def similarities(directions: torch.Tensor, table: RouteKeys) -> torch.Tensor:
    """max_j cos(A q_t, B k_ej) for every token and edit, `[T, N]` float32, from directions `[T, R]`."""
    directions = directions.to(table.keys.dtype)
    at_once = _TOKENS_AT_ONCE_ON_CPU if table.keys.device.type == "cpu" else _TOKENS_AT_ONCE
    rows = max(1, at_once // max(1, table.keys.shape[1]))
    best = torch.cat([_best_in_rows(directions, keys) for keys in table.keys.split(rows)]).float()
    if table.owners is None:
        return best.T
    found = best.new_full((table.num_edits + 1, len(directions)), -1.0)
    owners = table.owners.clamp(max=table.num_edits)
    return found.scatter_reduce_(0, owners[:, None].expand_as(best), best, "amax")[:-1].T


def _best_in_rows(directions: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """max_j cos `[M, T]` of rows `[M, W, R]`. The maximum is taken of halves again and again, because `amax` over W
    takes as long as the product itself."""
    rows, width = keys.shape[:2]
    cosines = (keys.flatten(0, 1) @ directions.T).view(rows, width * len(directions))
    while width > 1:
        width = (width + 1) // 2  # of an odd number the middle one is in both halves
        kept = width * len(directions)
        cosines = torch.maximum(cosines[:, :kept], cosines[:, -kept:])
    return cosines


def distances_from_end(num_tokens: int, device: torch.device | None = None) -> torch.Tensor:
    """Distances `[T]` of a question's tokens from its end."""
    return torch.arange(num_tokens - 1, -1, -1, device=device)


def whitened(features: torch.Tensor, dim: int, ridge: float = 0.05) -> torch.Tensor:
    """The `dim` whitened directions of largest variance, `[F, dim]`: where A and B start.

    Args:
        features: `[n, F]`, standardised.
        ridge: added to every variance, in units of the mean one.
    """
    covariance = torch.cov(features.T.double())
    values, vectors = torch.linalg.eigh(covariance)
    scaled = vectors @ torch.diag((values + ridge * values.mean()).rsqrt())
    return scaled[:, -dim:].float()


def start_from(router: Router, features: torch.Tensor) -> None:
    """Set A and B to the whitening and w to a constant: routing before any training."""
    with torch.no_grad():
        directions = whitened(features, router.query.out_features)
        for linear in (router.query, router.key):
            linear.weight.copy_(directions.T)
            linear.bias.zero_()
        nn.init.zeros_(router.outer.weight)
        nn.init.constant_(router.outer.bias, math.log(math.e - 1))
        nn.init.zeros_(router.distance.weight)
