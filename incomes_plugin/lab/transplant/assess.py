"""Will the transplant work? Measures a plan before anything is written, and gives one verdict with its reasons.

The bounds were set from published transplants; benchmarks/results/transplant.md holds them against our own outcomes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

import torch

from incomes_plugin.lab.transplant.digits import digit_scheme
from incomes_plugin.lab.transplant.methods import LinearMap
from incomes_plugin.lab.transplant.prepare import MatrixPair, Prepared

MOST_ANCHORS = 8192
"""Anchors used for the geometry; more take longer and change nothing."""
HELD_OUT = 10
PENALTY = 1e-2
FEWEST_ANCHORS_PER_DIMENSION = 2.0
SMALLEST_RETRIEVAL_GAIN = 20.0
"""Held-out anchors found again, in units of chance: below, the two spaces have hardly anything in common."""
MUCH_NEW, TOO_MUCH_NEW = 0.1, 0.4
"""Share of the user's text in estimated tokens."""
MUCH_RECUT, TOO_MUCH_RECUT = 0.02, 0.05
"""Share of its words that are cut otherwise, for a base with edits: where 8 % were, a quarter of the edits was lost."""
MOST_WORDS = 20_000
"""Words of the user's text looked at."""
_WORD = re.compile(r"\w+")


class Verdict(StrEnum):
    """One word for a decision."""

    GO = "go"
    CAUTION = "caution"
    NO = "no"


@dataclass(frozen=True)
class Geometry:
    """How well a linear map, fitted on nine anchors in ten, predicts the tenth.

    Attributes:
        part: embedding or head.
        anchors: tokens looked at.
        cosine: mean cosine of predicted and true rows of the base, both without the mean row.
        retrieval: share of held-out tokens whose predicted row is closest to their own true row.
        chance: that share if rows were drawn at random.
    """

    part: str
    anchors: int
    cosine: float
    retrieval: float
    chance: float


@dataclass(frozen=True)
class TextCost:
    """The user's text under both tokenizers.

    Attributes:
        estimated_share: share of its new tokens whose rows are estimated.
        recut_share: share of its words that are cut otherwise than before, and are not one token now.
    """

    num_bytes: int
    base_tokens: int
    new_tokens: int
    estimated_share: float
    recut_share: float = 0.0


@dataclass(frozen=True)
class Assessment:
    """All that was measured.

    Attributes:
        tokens, copied, estimated: of the donor; the rest are special, idle or unreachable.
        base_digits, donor_digits: how numbers are cut.
        width: of the donor's rows; 0 for a tokenizer alone.
        edits: the base takes edits.
    """

    tokens: int
    copied: int
    estimated: int
    anchors: int
    width: int
    base_digits: str
    donor_digits: str
    word_start_kept: bool
    geometry: tuple[Geometry, ...]
    text: TextCost | None
    edits: bool = False

    @property
    def coverage(self) -> float:
        """Share of the donor's tokens that keep a row of the base."""
        return self.copied / self.tokens

    @property
    def reasons(self) -> tuple[tuple[Verdict, str], ...]:
        """The reasons against the transplant, the worst first."""
        found = [*self._about_text(), *self._about_geometry()]
        if self.base_digits != self.donor_digits:
            found.append(
                (
                    Verdict.NO,
                    f"numbers are cut as {self.donor_digits}, the body learned {self.base_digits}: arithmetic breaks",
                )
            )
        if not self.word_start_kept:
            found.append((Verdict.CAUTION, "the body's space before text cannot be kept: short answers suffer"))
        return tuple(sorted(found, key=lambda reason: reason[0] is not Verdict.NO))

    @property
    def verdict(self) -> Verdict:
        """The worst of the reasons."""
        return self.reasons[0][0] if self.reasons else Verdict.GO

    def _about_text(self) -> list[tuple[Verdict, str]]:
        if self.text is None:
            return [(Verdict.CAUTION, "no text was given (--text), so nobody knows how much of it is in new tokens")]
        found = []
        new, recut = self.text.estimated_share, self.text.recut_share
        if new > MUCH_NEW:
            verdict = Verdict.NO if new > TOO_MUCH_NEW else Verdict.CAUTION
            found.append((verdict, f"{new:.0%} of the text is in tokens whose rows are estimated"))
        if self.edits and recut > MUCH_RECUT:
            verdict = Verdict.NO if recut > TOO_MUCH_RECUT else Verdict.CAUTION
            found.append((verdict, f"{recut:.0%} of its words are cut into other pieces: edits suffer; --cut words"))
        return found

    def _about_geometry(self) -> list[tuple[Verdict, str]]:
        if not self.width:
            return [(Verdict.CAUTION, "the donor is a tokenizer alone: new rows can only be spelled")]
        found = []
        if self.anchors < FEWEST_ANCHORS_PER_DIMENSION * self.width:
            found.append((Verdict.NO, f"{self.anchors} shared tokens are too few for rows of {self.width} numbers"))
        for part in self.geometry:
            if part.retrieval < SMALLEST_RETRIEVAL_GAIN * part.chance:
                times = part.retrieval / part.chance
                found.append(
                    (Verdict.NO, f"{part.part}: the spaces agree on {times:.1f} times chance of held-out tokens")
                )
        return found


def assess(prepared: Prepared, text: str | None = None) -> Assessment:
    """Measure; reads the matrices, writes nothing."""
    measurable = {pair.part: pair for pair in prepared.pairs if pair.donor}
    return Assessment(
        tokens=len(prepared.donor.vocabulary.tokens),
        copied=len(prepared.alignment.copied) + len(prepared.specials.copied),
        estimated=len(prepared.rows.estimated),
        anchors=len(prepared.anchors),
        width=prepared.donor.matrices.embedding.shape()[1] if prepared.donor.matrices else 0,
        base_digits=digit_scheme(prepared.base.tokenizer),
        donor_digits=digit_scheme(prepared.fitted.tokenizer),
        word_start_kept=prepared.fitted.word_start_kept,
        geometry=tuple(geometry(pair, prepared.anchors) for pair in measurable.values()),
        text=None if text is None else _text_cost(prepared, text),
        edits=prepared.adapter is not None,
    )


def geometry(pair: MatrixPair, anchors: tuple[tuple[int, int], ...]) -> Geometry:
    """Predict the base's rows of held-out anchors from the donor's."""
    assert pair.donor is not None
    chosen = torch.tensor(anchors)[torch.randperm(len(anchors), generator=torch.Generator().manual_seed(0))]
    donor_ids, base_ids = chosen[:MOST_ANCHORS].unbind(dim=1)
    x, y = pair.donor.read()[donor_ids].float(), pair.base.read()[base_ids].float()
    held_out = torch.arange(len(x)) % HELD_OUT == 0
    fitted = LinearMap.fit(x[~held_out], y[~held_out], PENALTY)
    predicted, true = (rows - fitted.to_mean for rows in (fitted(x[held_out]), y[held_out]))
    cosines = torch.nn.functional.normalize(predicted, dim=1) @ torch.nn.functional.normalize(true, dim=1).T
    found = (cosines.argmax(dim=1) == torch.arange(len(true))).float().mean()
    return Geometry(pair.part, len(x), float(cosines.diagonal().mean()), float(found), 1 / len(true))


def _text_cost(prepared: Prepared, text: str) -> TextCost:
    new = prepared.fitted.tokenizer(text, add_special_tokens=False)["input_ids"]
    old = prepared.base.tokenizer(text, add_special_tokens=False)["input_ids"]
    estimated = set(prepared.rows.estimated)
    share = sum(index in estimated for index in new) / max(1, len(new))
    return TextCost(len(text.encode()), len(old), len(new), share, _recut_share(prepared, text))


def _recut_share(prepared: Prepared, text: str) -> float:
    words = _WORD.findall(text)[:MOST_WORDS]
    new, old = (
        side(words, add_special_tokens=False)["input_ids"] if words else []
        for side in (prepared.fitted.tokenizer, prepared.base.tokenizer)
    )
    sources = prepared.rows.sources.tolist()
    recut = [len(one) > 1 and [sources[i] for i in one] != other for one, other in zip(new, old, strict=True)]
    return sum(recut) / max(1, len(recut))
