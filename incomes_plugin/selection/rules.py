"""The rules of picking: fixed numbers, which are calibrated after training."""

from __future__ import annotations

import math
from dataclasses import dataclass

CROWD = 1000
"""Number of edits for which the threshold is given; see `RoutingRules.growth`."""


@dataclass(frozen=True)
class RoutingRules:
    """Fixed numbers of routing, calibrated after training.

    Attributes:
        candidates: edits that are verified at most.
        margin: of these, those whose score lies at most so far below the best one's, and those that cover what the best
            one does not, see `verified.py`; a score is a weighted mean cosine over the tokens that some candidate
            covers. Where an edit applies the others are far off, and verifying them would be in vain.
        cover: of these again, those that cover so much of the question, see `verified.coverage`; the verifier is not to
            take for an answer what has next to nothing of the question in it. 0 = all.
        most_picks: edits that a request reads at most.
        threshold: verifier's logit from which an edit applies, among `CROWD` edits.
        growth: what is added to the threshold each time the number of edits grows e-fold beyond `CROWD`: among more
            wrong edits the best one gets a higher logit.
        rivalry: an accepted edit is dropped if a later accepted one covers the question so well that the older one adds
            less than this (weighted mean cosine), and the judge says that the two are in conflict: then the later one
            is a new answer to the same question. 0 = never.
        conflict: logit of the judge from which two picks count as rivals; a new edit is in conflict with another from
            0 on.
        open: the question is asked again with what its picks say if they leave at least so much of it open, see
            `onward.left_open`; by default never.
        onward: verifier's logit from which an edit that is found in this way applies.
        led: taken off the bias of an edit that has led to another: it said where to look, and the other one answers.
    """

    candidates: int = 8
    margin: float = 2.0
    cover: float = 0.0
    most_picks: int = 4
    threshold: float = 0.0
    growth: float = 0.0
    rivalry: float = 0.0
    conflict: float = 0.0
    open: float = 1e9
    onward: float = 0.0
    led: float = 0.0

    def threshold_among(self, num_edits: int) -> float:
        """The threshold among `num_edits` edits."""
        return self.threshold + self.growth * math.log(max(1.0, num_edits / CROWD))
