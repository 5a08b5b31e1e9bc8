"""Fit the judge of conflicts (`selection/conflicts.py`) to pairs of edits of which it is known what they are.

in: groups of edits, features of their texts, the trained router and verifier; out: the judge, and how well nets that
had not seen a group did on it

Every text of a group comes as a new edit into the set of all groups' edits, and the judge learns which of the
candidates that routing names are in conflict with it. Its threshold is read off from nets that have not seen the group
in question (five folds), at the wanted share of false alarms: the share of new edits, in conflict with nothing, for
which at least one candidate is taken for a conflict.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from incomes_plugin.lab.adapt.conflict_groups import ConflictGroup
from incomes_plugin.lab.adapt.features import Ragged
from incomes_plugin.lab.adapt.training import Descent, descend
from incomes_plugin.lab.adapt.verifying import route_table
from incomes_plugin.lab.progress import StageProgress
from incomes_plugin.selection.conflicts import CANDIDATES, Judge, Sought, nearest, numbers_of, swapped
from incomes_plugin.selection.edit_pairs import NUMBERS
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.verifier import Verifier

IN_CONFLICT = ("contradictions", "reworded", "duplicates")
"""Kinds of new edits that are in conflict with their group's edit."""

FALSE_ALARMS = 0.02
"""Share on which the threshold is fitted."""

KIND_WEIGHT = 0.1
"""Of what tells duplicates from contradictions, beside what tells conflicts from neighbours."""

_NEVER = -10.0
_FOLDS = 5
_ROUTED_AT_ONCE = 64


@dataclass(frozen=True)
class JudgingSteps:
    """How long the fit is.

    Attributes:
        steps: updates of each of the six nets, on all pairs.
        rate: largest learning rate.
    """

    steps: int = 800
    rate: float = 0.02


@dataclass(frozen=True)
class Newcomer:
    """A text that comes as a new edit, of which kind it is, and the number of its group."""

    text: str
    kind: str
    group: int


@dataclass(frozen=True)
class JudgedPair:
    """A new edit beside one candidate.

    Attributes:
        new: number of the new edit; `group`: of its group.
        kind: of the new edit, e.g. `contradictions`; `source`: its data set.
        numbers: what the judge gets; empty where no candidate is worth a look.
        meant: the candidate is the edit that the new one is in conflict with.
    """

    new: int
    group: int
    kind: str
    source: str
    numbers: tuple[float, ...]
    meant: bool


class GroupedEdits:
    """The edits of groups as one edit set, and the features of all texts.

    Args:
        features: `[T, F]` of every text of the groups, as a gist keeps them.
    """

    def __init__(
        self, groups: Sequence[ConflictGroup], features: Mapping[str, torch.Tensor], router: Router, verifier: Verifier
    ) -> None:
        self.groups, self.features = groups, features
        self.router, self.verifier = router, verifier
        self.keys = route_table(router, Ragged.of([features[group.edit] for group in groups]))

    def newcomers(self) -> Iterator[Newcomer]:
        """Every text that comes as a new edit; those of the set too, each beside all others."""
        for number, group in enumerate(self.groups):
            yield Newcomer(group.edit, "others", number)
            for kind in (*IN_CONFLICT, "neighbours"):
                for text in getattr(group, kind):
                    if text != group.edit:
                        yield Newcomer(text, kind, number)

    @torch.inference_mode()
    def candidates(self, newcomers: Sequence[Newcomer]) -> list[list[int]]:
        """For each the edits that routing names for it, without itself."""
        sought = [Sought.of(self.router, self.features[new.text]) for new in newcomers]
        return [
            [row for row in found if self.groups[row].edit != new.text][:CANDIDATES]
            for new, found in zip(newcomers, nearest(sought, self.keys, CANDIDATES + 1), strict=True)
        ]

    def features_of(self, rows: Sequence[int]) -> list[torch.Tensor]:
        """Of edits of the set."""
        return [self.features[self.groups[row].edit] for row in rows]


@torch.inference_mode()
def judged_pairs(edits: GroupedEdits, report: StageProgress) -> Iterator[JudgedPair]:
    """Every new edit beside every candidate that the judge looks at closely."""
    newcomers = list(edits.newcomers())
    number = 0
    for start in range(0, len(newcomers), _ROUTED_AT_ONCE):
        some = newcomers[start : start + _ROUTED_AT_ONCE]
        for new, rows in zip(some, edits.candidates(some), strict=True):
            others = edits.features_of(rows)
            places, numbers = numbers_of(edits.router, edits.verifier, edits.features[new.text], others)
            about = number, new.group, new.kind, edits.groups[new.group].source
            for place, row in zip(places, numbers.tolist(), strict=True):
                yield JudgedPair(*about, tuple(row), meant=new.kind in IN_CONFLICT and rows[place] == new.group)
            if not places:
                yield JudgedPair(*about, (), meant=False)
            number += 1
        report("judging", number, len(newcomers))


def fitted(
    pairs: Sequence[JudgedPair], settings: JudgingSteps, *, false_alarms: float = FALSE_ALARMS, seed: int
) -> tuple[Judge, dict[str, tuple[float, int]]]:
    """The judge, and for each kind of new edit in which share a conflict was found, among how many, by nets that had
    not seen them."""
    looked = [pair for pair in pairs if pair.numbers]
    logits = torch.zeros(len(looked))
    for fold in range(_FOLDS):
        judge = _fit([pair for pair in looked if pair.group % _FOLDS != fold], settings, seed)
        left = torch.tensor([pair.group % _FOLDS == fold for pair in looked], dtype=torch.bool)
        logits[left] = judge(_numbers(looked)[left])[:, 0]
    threshold, found = _threshold(pairs, looked, logits.tolist(), false_alarms)
    judge = _fit(looked, settings, seed)
    judge.out_bias[0] -= threshold
    return judge, found


def _numbers(pairs: Sequence[JudgedPair]) -> torch.Tensor:
    return torch.tensor([pair.numbers for pair in pairs]).reshape(-1, NUMBERS)


def _fit(pairs: Sequence[JudgedPair], settings: JudgingSteps, seed: int) -> Judge:
    """A net that was fitted to these pairs; what standardised their numbers is folded into it. Without pairs it takes
    nothing for a conflict."""
    torch.manual_seed(seed)
    judge = Judge()
    if not pairs:
        judge.requires_grad_(False).out.zero_()
        judge.out_bias[0] = _NEVER
        return judge
    numbers = _numbers(pairs)
    both = torch.cat([numbers, swapped(numbers)])
    mean, scale = both.mean(0), both.std(0, correction=0) + 1e-6
    numbers = (numbers - mean) / scale
    meant = torch.tensor([pair.meant for pair in pairs]).float()
    same = torch.tensor([pair.kind == "duplicates" for pair in pairs]).float()

    def loss_of(_: random.Random) -> torch.Tensor:
        found = judge(numbers)
        kind = F.binary_cross_entropy_with_logits(found[:, 1], same, reduction="none")
        of_kind = (kind * meant).sum() / meant.sum().clamp_min(1.0)
        return F.binary_cross_entropy_with_logits(found[:, 0], meant) + KIND_WEIGHT * of_kind

    descend(judge, loss_of, Descent(settings.steps, settings.rate, warm=1, weight_decay=0.01), seed=seed)
    judge.hidden.div_(scale)
    judge.hidden_bias.sub_(judge.hidden @ mean)
    return judge


def _threshold(
    pairs: Sequence[JudgedPair], looked: Sequence[JudgedPair], logits: Sequence[float], false_alarms: float
) -> tuple[float, dict[str, tuple[float, int]]]:
    """The logit that so many new edits in conflict with nothing reach, and what is found above it."""
    highest: dict[int, float] = defaultdict(lambda: -1e9)
    meant: dict[int, float] = defaultdict(lambda: -1e9)
    for pair, logit in zip(looked, logits, strict=True):
        best = meant if pair.meant else highest
        best[pair.new] = max(best[pair.new], logit)
    kinds = {pair.new: (pair.kind, pair.source) for pair in pairs}
    mere = sorted((highest[new] for new, (kind, _) in kinds.items() if kind not in IN_CONFLICT), reverse=True)
    threshold = max(mere[int(false_alarms * len(mere))], 0.0)
    found: dict[str, list[bool]] = defaultdict(list)
    for new, (kind, source) in kinds.items():
        hit = (meant if kind in IN_CONFLICT else highest)[new] > threshold
        found[kind].append(hit)
        found[f"{kind} of {source}"].append(hit)
    return threshold, {name: (round(sum(hits) / len(hits), 4), len(hits)) for name, hits in sorted(found.items())}
