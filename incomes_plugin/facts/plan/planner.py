"""The plan for N edits: arithmetic on what was measured and on the theory of `facts/theory.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.facts.plan.measured import Leads, Measured
from incomes_plugin.facts.theory import load, logit_scale

ERROR = 0.01
"""Weight that may go to wrong edits where the logit scale is enough."""

_MOST_SCALE = 1e3
_PIECES = 200
"""Of the tail, for sums over it."""


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
    first: float
    among: float
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
        first=found_among(measured.leads, edits, 1),
        among=found_among(measured.leads, edits, measured.top_k or 1),
        scale_theory=logit_scale(edits, width, ERROR),
        scale_measured=scale_needed(measured.leads, edits, ERROR),
    )


def refuse_beyond_safe_load(edits: int, safe_edits: int, value_width: int, next_value_width: int | None) -> None:
    """What activation asks before N edits go into one linear memory; the last three are a plan's.

    Raises:
        InvalidValue: more edits than are recalled at 99 %, with the limit and the next size.
    """
    if edits <= safe_edits:
        return
    wider = next_value_width
    remedy = "split the edit set: questions of this model look too much alike" if wider is None else f"take {wider:,}"
    raise InvalidValue(
        f"{edits:,} edits are beyond the safe load of a memory with values of width {value_width:,}: at most "
        f"{safe_edits:,} are recalled at 99 %; {remedy}", param="edits",
    )  # fmt: skip


def found_among(leads: Leads, edits: int, picks: int) -> float:
    """Share of questions with fewer than `picks` wrong edits above the right one among N; Poisson for each question."""
    mean = leads.beaten() * (edits - 1)
    terms = [torch.exp(-mean + count * mean.clamp_min(1e-30).log() - math.lgamma(count + 1)) for count in range(picks)]
    return float(torch.stack(terms).sum(dim=0).mean())


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
