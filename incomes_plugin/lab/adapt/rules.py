"""The rules of picking, read off from what training did not see: thresholds, rivalry, and when a question is asked on.

`run.py` gives the held-out edits, the trained parts and a way to capture new texts, and keeps what comes out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch

from incomes_plugin.lab.adapt.base_features import BaseFeatures
from incomes_plugin.lab.adapt.calibrating import HeldOut, Shares, calibrate
from incomes_plugin.lab.adapt.features import FrozenBase, Ragged
from incomes_plugin.lab.adapt.onward import Lead, leads_of, onward_rules
from incomes_plugin.lab.adapt.plan import Plan
from incomes_plugin.lab.adapt.rivalry import couples, harmless_bound, rivalry
from incomes_plugin.lab.adapt.tokens import PlanTokens
from incomes_plugin.lab.adapt.verifying import batch_logits
from incomes_plugin.selection.conflicts import Judge, conflict_logits
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.rules import CROWD, RoutingRules
from incomes_plugin.selection.verifier import Verifier

HELD_SHARE = 10
"""One edit of so many, and one refused prompt of so many, is kept out of training, for calibration."""

_LEFT_OPEN_HELD = 500
"""Questions that lead nowhere, from which the rules of asking on are read off."""

_MARGIN = 0.2
"""See `RoutingRules.margin`. Measured: docs/experiments.md."""

_COUPLES = 200
"""Contradictions, and as many pairs asked for at once, that rivalry is read off from."""


class Calibration:
    """What was held out of one run, and the trained parts whose rules are sought.

    Args:
        held: rows of the edits that were held out.
        scale, seed: of the run.
    """

    def __init__(
        self, plan: Plan, captured: BaseFeatures, held: set[int], router: Router, verifier: Verifier, judge: Judge, *,
        scale: float, seed: int,
    ) -> None:  # fmt: skip
        self._plan, self._captured, self._held = plan, captured, held
        self._router, self._verifier, self._judge = router, verifier, judge
        self._scale, self._seed = scale, seed

    def rules(self, shares: Shares, led: float, base: FrozenBase, tokens: PlanTokens) -> RoutingRules:
        """All rules.

        Args:
            shares: what the thresholds may cost.
            led: see `RoutingRules`; reading was trained with it.
            base, tokens: capture the contradictions from which rivalry is read off; they are no part of the plan.
        """
        router, verifier, found = self._router, self._verifier, self._held_out()
        rules = calibrate(router, verifier, found, RoutingRules(margin=_MARGIN, led=led), shares, seed=self._seed)
        harmless = harmless_bound(router, verifier, self._judge, found, rules, shares.drop)
        rules = replace(rules, rivalry=self._rivalry(rules, harmless, base, tokens))
        asked = enumerate(self._plan.asked)
        ours = [i for i, a in asked if not self._held.isdisjoint(a.owners) and not a.unverified]
        questions = self._captured.questions
        edits = self._captured.edits.features
        found_leads = leads(
            self._plan, questions, edits, verifier.num_parts, ours, _LEFT_OPEN_HELD, scale=self._scale, seed=self._seed
        )
        return onward_rules(
            router, verifier, edits, found.subjects, found_leads, rules,
            tried=shares.tried, false=shares.onward,
        )  # fmt: skip

    def _held_out(self) -> HeldOut:
        plan, captured = self._plan, self._captured
        asked = [
            i for i, asked in enumerate(plan.asked)
            if not asked.rare and asked.answer is not None and asked.edits[0] in self._held
        ]  # fmt: skip
        refused: dict[bool, list[int]] = {True: [], False: []}
        for i in range(0, len(captured.refused), HELD_SHARE):
            refused[plan.refused[i].near is not None].append(i)
        return HeldOut(
            captured.edits.features, [e.subject or e.statement for e in plan.edits],
            Ragged.of([captured.questions[i] for i in asked]), [plan.asked[i].edits[0] for i in asked],
            Ragged.of([captured.refused[i] for i in refused[False]]),
            Ragged.of([captured.refused[i] for i in refused[True]]),
            [edit for i in refused[True] if (edit := plan.refused[i].near) is not None],
        )  # fmt: skip

    def _rivalry(self, rules: RoutingRules, harmless: float, base: FrozenBase, tokens: PlanTokens) -> float:
        found = couples(max(10, int(_COUPLES * self._scale)), seed=self._seed)
        standard = self._captured.standard
        older, later = (
            standard(base.edits([tokens.edit(text) for text in texts]).features)
            for texts in ([couple.older for couple in found], [couple.later for couple in found])
        )
        prompts = [tokens.prompt([{"role": "user", "content": couple.prompt}]) for couple in found]
        questions = standard(base.questions(prompts))
        threshold = rules.threshold_among(CROWD)
        met = [
            i for i in range(len(found))
            if self._accepts(questions[i], later[i], threshold) and self._in_conflict(later[i], older[i], rules)
        ]  # fmt: skip
        asked, first, second = ([part[i] for i in met] for part in (questions, older, later))
        return rivalry(self._router, asked, first, second, [found[i].replaces for i in met], harmless)

    def _accepts(self, question: torch.Tensor, edit: torch.Tensor, threshold: float) -> bool:
        """Whether the verifier takes an edit for an answer: only then it can drop another."""
        with torch.inference_mode():
            return float(batch_logits(self._router, self._verifier, [question], [edit])[0]) >= threshold

    def _in_conflict(self, later: torch.Tensor, older: torch.Tensor, rules: RoutingRules) -> bool:
        """Whether the judge lets an edit drop an older one, whatever the bound."""
        ((logit, _),) = conflict_logits(self._judge, self._router, self._verifier, later.float(), [older.float()])
        return logit > rules.conflict


def leads(
    plan: Plan, questions: Ragged, edits: Ragged, num_parts: int, chosen: Sequence[int], most: int, *, scale: float,
    seed: int,
) -> list[Lead]:  # fmt: skip
    """Those among the chosen questions that lead from one edit to another, and `most` that do not, at scale 1."""
    further = [i for i in chosen if len(plan.asked[i].owners) > 1]
    plain = [i for i in chosen if len(plan.asked[i].owners) == 1 and plan.asked[i].answer and not plan.asked[i].known]
    count = min(len(plain), max(1, int(most * scale)))
    found = []
    for i in further + random.Random(seed).sample(plain, count):
        asked = plan.asked[i]
        found += leads_of(questions[i], asked.messages[-1]["content"], asked.owners, asked.asides, edits, num_parts)
    return found
