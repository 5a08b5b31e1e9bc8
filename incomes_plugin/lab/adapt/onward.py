"""Questions asked on with what a picked edit says (`selection/onward.py`): what the verifier learns, and the rules.

Each edit of a chain leads to the next one, and to an aside that does not follow; the last one leads nowhere. Neither
does any other question, whatever the router finds for what it leaves open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from incomes_plugin.lab.adapt.features import Ragged
from incomes_plugin.lab.adapt.verifying import Prompts, route_table
from incomes_plugin.selection.onward import Query, left_open, onward
from incomes_plugin.selection.routing import Router, distances_from_end
from incomes_plugin.selection.rules import RoutingRules
from incomes_plugin.selection.verified import verified
from incomes_plugin.selection.verifier import Verifier


@dataclass(frozen=True)
class Lead:
    """A question, or what picks have left open of one, with the edit that it picks.

    Attributes:
        query: what was asked.
        picked: rows of the edits picked so far; the last one is what this is about.
        text: of the question.
        further: row of the edit that the last one leads to, or None.
        aside: row of an edit that looks as if it followed, or None.
    """

    query: Query
    picked: tuple[int, ...]
    text: str = ""
    further: int | None = None
    aside: int | None = None


def leads_of(
    question: torch.Tensor, text: str, owners: Sequence[int], asides: Sequence[int], edits: Ragged, num_parts: int
) -> list[Lead]:  # fmt: skip
    """One lead for each edit of a question, in their order."""
    found, query = [], Query.of(question)
    for step, further in enumerate([*owners[1:], None]):
        picked = tuple(owners[: step + 1])
        aside = asides[step] if step < len(asides) else None
        found.append(Lead(query, picked, text, further, aside))
        query = onward(query, edits[picked[-1]], num_parts)
    return found


def onward_prompts(edits: Ragged, leads: Sequence[Lead], num_parts: int) -> tuple[Prompts, Prompts]:
    """What is asked next after each lead: prompts that an edit answers, and prompts that none does."""
    asked: list[tuple[torch.Tensor, tuple[int, ...], str, int | None]] = []
    refused: list[tuple[torch.Tensor, tuple[int, ...], str, int | None]] = []
    for lead in leads:
        rest = onward(lead.query, edits[lead.picked[-1]], num_parts).features
        if not len(rest):
            continue
        if lead.further is None:
            refused.append((rest, lead.picked, lead.text, None))
            continue
        asked.append((rest, (lead.further,), lead.text, None))
        if lead.aside is not None:
            refused.append((rest, (*lead.picked, lead.further), lead.text, lead.aside))
    return _prompts(asked), _prompts(refused)


def _prompts(found: Sequence[tuple[torch.Tensor, tuple[int, ...], str, int | None]]) -> Prompts:
    features, owners, texts, near = ([row[i] for row in found] for i in range(4))
    return Prompts(Ragged.of(features), owners, texts, near)  # type: ignore[arg-type]


def joined_prompts(*parts: Prompts) -> Prompts:
    """All prompts of several sorts."""
    return Prompts(
        Ragged.of([part.features[i] for part in parts for i in range(len(part.features))]),
        [own for part in parts for own in part.owners],
        [text for part in parts for text in part.texts],
        [edit for part in parts for edit in (part.near or [None] * len(part.owners))],
    )


@torch.inference_mode()
def onward_rules(
    router: Router, verifier: Verifier, edits: Ragged, subjects: Sequence[str], leads: Sequence[Lead],
    rules: RoutingRules, *, tried: float, false: float,
) -> RoutingRules:  # fmt: skip
    """The rules with `open` and `onward`.

    Args:
        edits: all of them; the leads' are among them.
        subjects: what each is about. Other edits of a lead's subject are left out: published sets often have several
            that say the same or contradict each other.
        leads: held out; some lead further and some do not. First ones count, later ones of chains do not.
        tried: share of those that lead further which are asked on.
        false: share of those that do not which may pick something more.
    """
    table = route_table(router, edits)
    first = [lead for lead in leads if len(lead.picked) == 1]
    shares = [_open(router, edits, lead) for lead in first]
    further = [share for share, lead in zip(shares, first, strict=True) if lead.further is not None]
    if not further:
        return rules
    least = float(torch.tensor(further).quantile(1 - tried))
    wrong = []
    for share, lead in zip(shares, first, strict=True):
        if lead.further is not None:
            continue
        if share < least:  # not asked on
            wrong.append(-torch.inf)
            continue
        (edit,) = lead.picked
        rest = onward(lead.query, edits[edit], verifier.num_parts)
        passed = {i for i, subject in enumerate(subjects) if subject == subjects[edit]}
        found = verified(router, verifier, rest, table, lambda i: edits[i].float(), rules.candidates, passed=passed)
        wrong.append(-torch.inf if found is None else float(found.logits.max()))
    bound = sorted(wrong)[min(int((1 - false) * len(wrong)), len(wrong) - 1)] if wrong else -torch.inf
    return replace(rules, open=round(least, 4), onward=round(max(bound, rules.threshold), 3))


def _open(router: Router, edits: Ragged, lead: Lead) -> float:
    """How much of a question its first pick leaves open."""
    question = lead.query.features
    weights = router.weights(question, distances_from_end(len(question)))
    edit = edits[lead.picked[-1]].float()
    return left_open(weights, (router.directions(question) @ router.route_keys(edit).T).amax(-1))
