"""Finds new rows that stand out. A donor can carry rows that are harmless in its own model and do harm in another
(arXiv 2601.00065).

Three looks at every estimated row, each against rows that are known to be good or against the other new ones:

    length        log of its length, in deviations of the copied rows' lengths
    distance      to the row a second method makes of the same evidence, in deviations of the other rows' distances
    said          share of places of the user's text at which the base's body would say it, before all other tokens

A row that was made to steer what is generated must be long or lie in the direction of hidden states, and a linear map
of the same donor row does not give such a row. This is a screen, not a proof.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from incomes_plugin.lab.transplant.estimate import MatrixJob, make_matrix
from incomes_plugin.lab.transplant.methods import NEED_NO_DONOR_ROWS, Recipe
from incomes_plugin.lab.transplant.prepare import MatrixPair, Prepared

LONG, FAR = 6.0, 12.0
"""Deviations beyond which a row stands out."""
SAID, TIMES = 0.01, 10
"""Share of places, and how many times its share in the text, that a row must be said at to stand out."""
SECOND = {"omp": "ridge", "knn": "ridge", "ridge": "knn"}
PLACES, ROWS = 256, 4096
"""Places of the text, and rows, looked at together."""


@dataclass(frozen=True)
class Suspect:
    """A row that stands out.

    Attributes:
        token: as the donor's files spell it.
        reasons: of `long`, `far`, `said`.
    """

    id: int
    token: str
    reasons: tuple[str, ...]
    length: float
    distance: float
    said: float


@dataclass(frozen=True)
class Inspection:
    """One matrix.

    Attributes:
        rows: that were looked at.
        second: the method compared with.
        agreement: median cosine of a row and the second method's.
        probes: places of text at which it was asked what would be said; 0 = no text, or no output matrix.
    """

    rows: int
    second: str
    agreement: float
    probes: int
    suspects: tuple[Suspect, ...]


@dataclass(frozen=True)
class Probes:
    """Hidden states `[n, E]` of the base in the user's text, and the share of every new id in that text."""

    hidden: torch.Tensor
    shares: dict[int, float]


@torch.inference_mode()
def probe(model: PreTrainedModel, prepared: Prepared, texts: Sequence[str]) -> Probes:
    """Hidden states of the base for a text, in front of its output matrix."""
    old, new = prepared.base.tokenizer, prepared.fitted.tokenizer
    hidden, counts = [], Counter[int]()
    for text in texts:
        ids = torch.tensor([old(text, add_special_tokens=False)["input_ids"]])
        hidden.append(model.base_model(input_ids=ids).last_hidden_state[0])
        counts.update(new(text, add_special_tokens=False)["input_ids"])
    shares = {index: count / counts.total() for index, count in counts.items()}
    return Probes(torch.cat(hidden), shares)


def inspect(
    prepared: Prepared, pair: MatrixPair, recipe: Recipe, weight: torch.Tensor, probes: Probes | None
) -> Inspection | None:
    """Look at the new rows of one finished matrix; None for a method that uses nothing of the donor.

    Args:
        weight: `[V, E]`, the new matrix.
        probes: None = nobody is asked what it would say.
    """
    ids = torch.tensor(prepared.rows.estimated, dtype=torch.long)
    if recipe.method in NEED_NO_DONOR_ROWS or pair.donor is None or not len(ids):
        return None
    second = SECOND[recipe.method]
    job = MatrixJob.of(prepared, pair, Recipe(second), 1)
    other = make_matrix(job, pair.base.read(), pair.donor.read()).weight
    copied = weight[prepared.rows.sources >= 0].float()
    mean, known = copied.mean(dim=0), copied.norm(dim=1)
    agreement, new, gaps = _compare(weight, other, ids, mean)
    lengths = _deviations(new.clamp(min=1e-9).log(), known.clamp(min=1e-9).log())
    distances = _deviations(gaps, gaps)
    said = torch.zeros(len(ids)) if probes is None else _share_generated(weight, probes.hidden)[ids]
    usual = torch.tensor([TIMES * (probes.shares.get(int(i), 0.0) if probes else 0.0) for i in ids]).clamp(min=SAID)
    marks = {"long": lengths > LONG, "far": distances > FAR, "said": said > usual}
    names = prepared.donor.vocabulary.by_id
    suspects = [
        Suspect(
            int(ids[i]), names[int(ids[i])].name, tuple(name for name, mark in marks.items() if mark[i]),
            round(float(lengths[i]), 1), round(float(distances[i]), 1), round(float(said[i]), 4),
        )
        for i in torch.stack(list(marks.values())).any(dim=0).nonzero()[:, 0].tolist()
    ]  # fmt: skip
    asked = 0 if probes is None else len(probes.hidden)
    return Inspection(len(ids), second, float(agreement.median()), asked, tuple(suspects))


def _compare(
    weight: torch.Tensor, other: torch.Tensor, ids: torch.Tensor, mean: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each id: cosine of the two rows without `mean`, length of the first, distance to the second; each `[n]`."""
    found = []
    for part in ids.split(ROWS):
        rows, others = weight[part].float(), other[part].float()
        cosine = torch.nn.functional.cosine_similarity(rows - mean, others - mean)
        found.append(torch.stack([cosine, rows.norm(dim=1), (rows - others).norm(dim=1)]))
    cosines, lengths, gaps = torch.cat(found, dim=1)
    return cosines, lengths, gaps


def _deviations(values: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Distance from the reference's median in its median deviations (1.5 of them are about one standard deviation)."""
    middle = reference.median()
    spread = 1.4826 * (reference - middle).abs().median()
    return (values - middle) / spread.clamp(min=1e-6)


def _share_generated(weight: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Share of places `[V]` at which a row's logit is the highest."""
    best, tops = torch.full((len(hidden),), -torch.inf), torch.zeros(len(hidden), dtype=torch.long)
    for start in range(0, len(weight), ROWS):
        part = weight[start : start + ROWS].float()
        logits, where = map(
            torch.cat, zip(*((places @ part.T).max(dim=1) for places in hidden.split(PLACES)), strict=True)
        )
        tops = torch.where(logits > best, where + start, tops)
        best = torch.maximum(best, logits)
    return torch.bincount(tops, minlength=len(weight)).float() / len(hidden)
