"""From one edit on to the next: what a picked edit leaves open of a question is asked again, with what the edit says.

"What is the home town of the founder of Xcor?" picks "The founder of Xcor is Ann Zed."; left open are "What home town?"
and "Ann Zed", and together they find "The home town of Ann Zed is Quill." A question whose pick leaves little open is
not asked again, so most requests are routed once.
"""

from __future__ import annotations

import torch

from incomes_plugin.selection.routing import QUESTION_TOKENS
from incomes_plugin.selection.verifier import same_tokens


def open_share(weights: torch.Tensor, covered: torch.Tensor) -> float:
    """Share of a question's weight that its picks do not cover.

    Args:
        weights: `[T]`, w of its tokens.
        covered: `[T]`, the largest cosine of each with a token of a pick.
    """
    return 1.0 - float(weights / weights.sum() @ covered.clamp_min(0.0))


def onward(question: torch.Tensor, edit: torch.Tensor, num_parts: int) -> torch.Tensor:
    """Features `[T', F]` of what to ask next: tokens of the question that a pick lacks, then those of the pick that the
    question lacks.

    Args:
        question: `[T, F]` features.
        edit: `[E, F]` features of the pick.
        num_parts: feature layers.
    """
    same = same_tokens(question[None], edit[None].to(question), num_parts)[0]
    return torch.cat([question[~same.any(1)], edit.to(question)[~same.any(0)]])[-QUESTION_TOKENS:]
