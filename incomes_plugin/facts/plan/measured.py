"""What a plan needs to know of a model, measured on invented facts: its keys, and how far the right edit leads.

    effective width   1 / mean (k_i . k_j)^2 of whitened question keys: that of random keys which are as much alike
    lead              of the right edit's router logit over the wrong ones', the best of which are their tail

The tail is the best twentieth; its excess over the border is generalised Pareto, of one shape for all questions. All
edits of the sample are asked about.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.facts.check.keys import Asker
from incomes_plugin.facts.gate.file import FILE, FactGate
from incomes_plugin.facts.plan.gate import GateSample
from incomes_plugin.facts.plan.memory import MeasuredKeys
from incomes_plugin.model.hf import ReferencePool
from incomes_plugin.selection.routing import Routes
from incomes_plugin.training.data.facts import FactSource

EDITS = 2000
"""Of the measurement."""

TAIL, TAILS = 0.05, (0.02, 0.1)
"""Share of the wrong logits that is the tail, and what else it might be: a shorter one foretells less, a longer one
more. How near the three come to what is counted among 10,000: docs/facts.md."""

_EXPONENTIAL = 1e-3
_SEED = 77
_AT_ONCE = 64


@dataclass(frozen=True)
class Tail:
    """P(wrong logit > border + x) = share (1 + shape x / scale)^(-1 / shape): generalised Pareto.

    Attributes:
        share: of the wrong logits that is in it.
        border, scale: `[Q]`.
        shape: the same for all questions.
    """

    share: float
    border: torch.Tensor
    scale: torch.Tensor
    shape: float

    def above(self, logits: torch.Tensor) -> torch.Tensor:
        """Probability `[Q]` of a wrong logit above these `[Q]`, which are not below the border."""
        lead = (logits - self.border).clamp_min(0) / self.scale
        return self.share * (1 + self.shape * lead).clamp_min(0).pow(-1 / self.shape)

    def quantiles(self, shares: torch.Tensor) -> torch.Tensor:
        """Logits `[Q, P]` above which these shares `[P]` of the wrong ones are, each at most `share`."""
        excess = ((shares / self.share).pow(-self.shape) - 1) / self.shape
        return self.border[:, None] + self.scale[:, None] * excess


@dataclass(frozen=True)
class Leads:
    """Logits of Q questions among `edits` edits.

    Attributes:
        right: `[Q]`, of the right edit.
        wrong: `[Q, edits - 1]`, of all others, largest first.
    """

    right: torch.Tensor
    wrong: torch.Tensor

    @property
    def edits(self) -> int:
        """Edits that were in the pool."""
        return self.wrong.shape[1] + 1

    def tail(self, share: float = TAIL) -> Tail:
        """The tail of the wrong logits, by moments."""
        count = max(3, int(share * self.wrong.shape[1]))
        border = self.wrong[:, count - 1]
        excess = self.wrong[:, : count - 1] - border[:, None]
        mean, variance = excess.mean(dim=1).clamp_min(1e-6), excess.var(dim=1).clamp_min(1e-12)
        shape = float(((1 - mean.square() / variance) / 2).mean().clamp(-0.5, 0.45))
        shape = shape if abs(shape) > _EXPONENTIAL else _EXPONENTIAL
        return Tail(count / self.wrong.shape[1], border, mean * (1 - shape), shape)

    def beaten(self, share: float = TAIL) -> torch.Tensor:
        """Probability `[Q]` that one wrong edit more has a larger logit than the right one."""
        tail = self.tail(share)
        seen = (self.wrong > self.right[:, None]).float().mean(dim=1)
        return torch.where(self.right > tail.border, tail.above(self.right), seen)


@dataclass(frozen=True)
class Measured:
    """A model's keys.

    Attributes:
        key_width: E of question keys.
        effective_width: see the module docstring.
        gists_per_edit, bytes_per_gist: of captured edits, keys and values of all gist layers in bfloat16.
        route_bytes_per_gist: its row of the router's table.
        top_k: edits that a token may read; None = all, there is no router.
        leads: see above.
        keys: what a linear memory of whitened question keys recalls.
        gate: the sample in the model's fact gate; None = it has none.
    """

    key_width: int
    effective_width: float
    gists_per_edit: float
    bytes_per_gist: int
    route_bytes_per_gist: int
    top_k: int | None
    leads: Leads
    keys: MeasuredKeys
    gate: GateSample | None


@torch.inference_mode()
def measure(model_dir: Path, *, edits: int = EDITS) -> Measured:
    """Capture invented facts and ask about them.

    Raises:
        InvalidValue: the model has no router, whose logits are what is measured.
        FingerprintMismatch: its fact gate is another model's.
    """
    asker = Asker(model_dir)
    adapter = asker.model.adapter
    if adapter.router is None:
        raise InvalidValue(
            f"{model_dir} has no router, and a plan reads off its logits; train one (docs/training.md)", param="model"
        )
    facts = FactSource(_SEED, held_out=True).distinct(edits)
    texts = [asker.ids(fact.statement) for fact in facts]
    parts = (texts[first : first + _AT_ONCE] for first in range(0, edits, _AT_ONCE))
    gists = [gist for part in parts for gist in asker.model.capture_all(part)]
    raw = asker.raw([fact.question for fact in facts])
    keys = asker.whitening(raw)
    routes = ReferencePool.of(gists).routes
    heads = raw.unflatten(-1, (-1, adapter.shape.head_dim))
    return Measured(
        key_width=asker.width,
        effective_width=effective_width(keys),
        gists_per_edit=sum(gist.num_gists for gist in gists) / edits,
        bytes_per_gist=adapter.shape.bytes_per_gist(torch.bfloat16),
        route_bytes_per_gist=2 * routes.keys.shape[1],
        top_k=adapter.router.top_k,
        leads=leads(adapter.router.directions(heads), routes),
        keys=MeasuredKeys(keys),
        gate=GateSample.of(FactGate.load(model_dir), routes.keys) if (model_dir / FILE).is_file() else None,
    )


def leads(directions: torch.Tensor, routes: Routes) -> Leads:
    """Logits of every edit for directions `[Q, R]`; question i is about edit i."""
    best = torch.cat([_best(part, routes) for part in directions.split(_AT_ONCE)])
    own = torch.arange(len(best))[:, None]
    right = best.gather(1, own)[:, 0]
    wrong = best.scatter(1, own, -torch.inf).sort(dim=1, descending=True).values[:, :-1]
    return Leads(right, wrong)


def _best(directions: torch.Tensor, routes: Routes) -> torch.Tensor:
    """Logits `[Q, N]` of the edits' best entries."""
    scores = directions @ routes.keys.float().T
    owners = routes.owners.expand(len(scores), -1)
    return torch.full((len(scores), len(routes.ages)), -torch.inf).scatter_reduce(1, owners, scores, "amax")


def effective_width(keys: torch.Tensor) -> float:
    """1 / mean squared product of two different keys of `[B, E]`, of length 1."""
    products = (keys @ keys.T).square()
    count = len(keys)
    return float((count * (count - 1)) / (products.sum() - products.diagonal().sum()))
