"""The plan for N edits: arithmetic on what was measured and on the theory of `facts/theory.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.facts.plan.gate import GateNeeds
from incomes_plugin.facts.plan.measured import TAIL, TAILS, Leads, Measured
from incomes_plugin.facts.refusal import refuse_beyond_safe_load
from incomes_plugin.facts.theory import load, logit_scale

ERROR = 0.01
"""Weight that may go to wrong edits where the logit scale is enough."""

_MOST_SCALE = 1e3
_PIECES = 200
"""Of the tail, for sums over it."""


_Z = 1.96
"""Of 95 % intervals."""


@dataclass(frozen=True)
class Estimate:
    """A share foretold for N edits.

    Attributes:
        low, high: with a shorter and a longer tail (`TAILS`), and 95 % of what other questions might have said.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Plan:
    """What N edits cost and how well they will be found.

    Attributes:
        edits: N.
        pool_bytes, route_bytes: of gists on the device, and of the router's table.
        memory_bytes: W and P of a recursive memory, float32 and float64.
        key_width, value_width: E (effective, as measured) and U of the memory.
        load: N ln N / (E U).
        memory_recall: what the memory recalls of N facts, from theory and the measured keys.
        safe_edits: the most edits of which it recalls 99 %.
        next_value_width: U that N edits need; None = none is enough with these keys.
        gate: what they take of the fact gate; None = the model has none.
        first, among: share of questions whose edit the router puts first, or among its picks, extrapolated from the
            measured tail of wrong logits.
        scale_theory: what a match must score for random keys of the effective width.
        scale_measured: factor on the model's logits at which the median question gives its edit 1 - ERROR of the
            weight; infinite where a wrong edit leads.
    """

    edits: int
    pool_bytes: int
    route_bytes: int
    memory_bytes: int
    key_width: float
    value_width: int
    load: float
    memory_recall: float
    safe_edits: int
    next_value_width: int | None
    gate: GateNeeds | None
    first: Estimate
    among: Estimate
    scale_theory: float
    scale_measured: float

    @property
    def safe(self) -> bool:
        """Whether N edits stay within the safe load."""
        return self.edits <= self.safe_edits


def plan(edits: int, measured: Measured, value_width: int) -> Plan:
    """Put it together.

    Args:
        edits: N, at least 1.
        value_width: U of the memory.
    """
    width = measured.effective_width
    gists = round(edits * measured.gists_per_edit)
    return Plan(
        edits=edits,
        pool_bytes=gists * measured.bytes_per_gist,
        route_bytes=gists * measured.route_bytes_per_gist,
        memory_bytes=4 * measured.key_width * value_width + 8 * measured.key_width**2,
        key_width=width,
        value_width=value_width,
        load=load(edits, width, value_width),
        memory_recall=measured.keys.recall(edits, value_width),
        safe_edits=measured.keys.safe_facts(value_width),
        next_value_width=measured.keys.width_for(edits),
        gate=None if measured.gate is None else measured.gate.needs(gists),
        first=found_among(measured.leads, edits, 1),
        among=found_among(measured.leads, edits, measured.top_k or 1),
        scale_theory=logit_scale(edits, width, ERROR),
        scale_measured=scale_needed(measured.leads, edits, ERROR),
    )


def refuse_edits(found: Plan, measured: Measured, fact_gate_entries: int) -> None:
    """Refuse what the server's commit would refuse.

    Raises:
        InvalidValue: the model has no fact gate.
        PoolFull: names the limit and the next size.
    """
    if measured.gate is None or found.gate is None:
        raise InvalidValue("this model has no fact gate; plan with 0", param="fact_gate_entries")
    measured.gate.refuse_beyond(found.gate.entries, fact_gate_entries)


def refuse_facts(found: Plan) -> None:
    """Refuse more facts than one linear memory recalls.

    Raises:
        PoolFull: names the limit and the next width.
    """
    wider = found.next_value_width
    remedy = "split the edit set: questions of this model look too much alike" if wider is None else f"take {wider:,}"
    memory = f"a linear memory with values of width {found.value_width:,}"
    refuse_beyond_safe_load(memory, found.edits, "facts", found.safe_edits, remedy, param="width")


def found_among(leads: Leads, edits: int, picks: int) -> Estimate:
    """Share of questions with fewer than `picks` wrong edits above the right one among N."""
    middle, low, high = (_found(leads, edits, picks, share) for share in (TAIL, *TAILS))
    half = _Z * float(middle.std()) / math.sqrt(len(middle))
    shares = [float(found.mean()) for found in (middle, low, high)]
    return Estimate(shares[0], max(0.0, min(shares) - half), min(1.0, max(shares) + half))


def _found(leads: Leads, edits: int, picks: int, share: float) -> torch.Tensor:
    """Probability `[Q]` of that, Poisson for each question."""
    mean = leads.beaten(share) * (edits - 1)
    terms = [torch.exp(-mean + count * mean.clamp_min(1e-30).log() - math.lgamma(count + 1)) for count in range(picks)]
    return torch.stack(terms).sum(dim=0)


def scale_needed(leads: Leads, edits: int, error: float) -> float:
    """Factor c at which the median question's weight on its edit is 1 - `error` among N.

    The wrong logits are those measured, their tail as long as N makes it.
    """
    tail = leads.tail()
    ends = torch.logspace(math.log10(0.5 / edits), math.log10(tail.share), _PIECES + 1)
    middles, counts = (ends[1:] * ends[:-1]).sqrt(), edits * ends.diff()
    body = leads.wrong[:, int(tail.share * leads.wrong.shape[1]) :]
    wrong = torch.cat([tail.quantiles(middles), body], dim=1)
    more = torch.cat([counts.log(), torch.full((body.shape[1],), math.log(edits / leads.edits))])

    def enough(factor: float) -> bool:
        all_wrong = (factor * wrong + more).logsumexp(dim=1)
        return float((factor * leads.right - all_wrong).median()) >= math.log((1 - error) / error)

    if not enough(_MOST_SCALE):
        return math.inf
    low, high = 0.0, _MOST_SCALE
    while high - low > 0.001 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
