"""Numbers about a new edit and another one that may be in conflict with it; `conflicts.Judge` weighs them.

in: features of both edits' tokens; out: NUMBERS numbers a pair, the verifier asked once for all pairs of a new edit
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from incomes_plugin.selection.likeness import same_tokens
from incomes_plugin.selection.routing import QUESTION_TOKENS, Router, distances_from_end
from incomes_plugin.selection.verifier import Verifier, most_alike

NUMBERS = 20
"""Numbers about a pair that the net weighs: nine of each edit, side by side, and two of both."""


@dataclass(frozen=True)
class EditPair:
    """A new edit and another one, features `[T, F]` and `[E, F]`.

    Attributes:
        logit: the verifier's, with the new one as the question.
        lacks: which tokens of each the other one lacks, `[T]` and `[E]` bool.
    """

    router: Router
    new: torch.Tensor
    other: torch.Tensor
    logit: float
    same: torch.Tensor
    lacks: tuple[torch.Tensor, torch.Tensor]

    @classmethod
    def of(cls, router: Router, verifier: Verifier, new: torch.Tensor, other: torch.Tensor, logit: float) -> EditPair:
        """Compare their tokens."""
        other = other[-QUESTION_TOKENS:]
        same = same_tokens(new[None], other[None], verifier.num_parts)[0]
        return cls(router, new, other, logit, same, (~same.any(1), ~same.any(0)))

    @property
    def questions(self) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
        """What the verifier is asked besides, a question and an edit each: the other one whole, and each up to the last
        words that its counterpart lacks."""
        openings = (_opening(self.new, self.lacks[0]), self.other), (_opening(self.other, self.lacks[1]), self.new)
        return (self.other, self.new), *openings

    def numbers(self, backwards: float, opening: float, opening_back: float) -> list[float]:
        """`_of_side` and the opening of each, side by side; then the shares of the shorter one's tokens that are the
        same at the beginning and at the end."""
        router, new, other = self.router, self.new, self.other
        cosines = router.directions(new) @ router.route_keys(other).T
        back = router.directions(other) @ router.route_keys(new).T
        shorter = min(len(new), len(other))
        first = [*_of_side(self.logit, weights_of(router, new), cosines.amax(1), self.lacks[0]), opening]
        second = [*_of_side(backwards, weights_of(router, other), back.amax(1), self.lacks[1]), opening_back]
        ends = [
            float(d.diagonal()[:shorter].long().cumprod(0).sum()) / shorter for d in (self.same, self.same.flip(0, 1))
        ]
        return [number for pair in zip(first, second, strict=True) for number in pair] + ends


def verify_pairs(
    router: Router, verifier: Verifier, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    """The verifier's logits `[B]` of B pairs of question `[T, F]` and edit `[E, F]`, all in one pass."""
    found = [most_alike(edit, router.directions(question) @ router.route_keys(edit).T) for question, edit in pairs]
    longest = max(len(question) for question, _ in pairs)
    widths = torch.tensor([len(edit) for edit, _ in found])
    questions, weights, cosines = [], [], []
    for (question, _), (_, cosine) in zip(pairs, found, strict=True):
        missing = longest - len(question)  # padding of a question stands in front
        questions.append(F.pad(question, (0, 0, missing, 0)))
        weights.append(F.pad(weights_of(router, question), (missing, 0)))
        cosines.append(F.pad(cosine, (0, int(widths.max()) - cosine.shape[1], missing, 0), value=-1.0))
    lengths = torch.tensor([len(question) for question, _ in pairs])
    real = torch.arange(longest - 1, -1, -1) < lengths[:, None]
    mask = torch.arange(int(widths.max())) < widths[:, None]
    device = questions[0].device
    edits = pad_sequence([edit for edit, _ in found], batch_first=True)
    whole = torch.stack(questions), torch.stack(weights), real.to(device), edits, mask.to(device), torch.stack(cosines)
    return verifier(*whole).float()


def _opening(edit: torch.Tensor, lacks: torch.Tensor) -> torch.Tensor:
    """Where an edit asks up to the last words that the other lacks: "The colour of pump Z9 is"."""
    places = lacks.nonzero()[:, 0].tolist()
    start = len(edit)
    if places:
        start = next(place for place in range(places[-1], -1, -1) if place == 0 or not lacks[place - 1])
    return edit[: start or len(edit)]


def _of_side(logit: float, weights: torch.Tensor, covered: torch.Tensor, lacks: torch.Tensor) -> list[float]:
    """Of one edit: the verifier's logit with it as the question; how well the other one covers it; of its tokens that
    the other lacks the weight, the share and the stretches; the share of tokens before the first and behind the last of
    them; their number."""
    share, count = weights / weights.sum(), int(lacks.sum())
    places = lacks.nonzero()[:, 0].tolist()
    stretches = int(lacks[0]) + int((lacks[1:] & ~lacks[:-1]).sum())
    first, last = (places[0], places[-1]) if places else (len(lacks), -1)
    return [
        max(-10.0, min(10.0, logit)),
        float(share @ covered),
        float(share[lacks].sum()),
        count / len(lacks),
        min(stretches, 4) / 4,
        first / len(lacks),
        (len(lacks) - 1 - last) / len(lacks),
        min(count, 8) / 8,
    ]


def weights_of(router: Router, features: torch.Tensor) -> torch.Tensor:
    """Weights `[T]` of an edit's tokens as of a question's."""
    return router.weights(features, distances_from_end(len(features), features.device))
