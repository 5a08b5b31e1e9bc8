"""Set the router's gate when training has ended: as strict as questions about edits of the pool allow, at two sizes.

The softmax over the zero-gist and k edits says too rarely "none": it is taken over the best of N edits. So the
threshold is read off from training-part facts among `CROWD` edits, and the growth of the zero-gist with N from as many
questions among ten times as many: one setting then holds for every N.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.selection.routing import CROWD, Router
from incomes_plugin.training.data.facts import Fact, FactSource

ASK, KEPT = 300, 0.97
"""Questions, and the share of them that must go on reading, at both sizes."""

_SEED = 123
_LARGE = 10
_NEVER = 2.0
_MOST, _MOST_GROWTH = 0.5, 1.0


def calibrate(folder: Path, tokenizer: PreTrainedTokenizerBase, *, crowd: int = CROWD, ask: int = ASK) -> Router:
    """Write threshold and growth into the adapter in `folder` and return its router.

    Args:
        crowd: edits of the small pool; the large one has ten times as many.
    """
    adapter = EditAdapter.load(folder)
    if adapter.router is None:
        raise ValueError("only routed selection has a gate")
    editable = EditableModel.load(folder, torch.float32)
    editable.adapter = replace(adapter, router=replace(adapter.router, threshold=_NEVER, growth=0.0))
    facts = FactSource(_SEED, held_out=False).distinct(_LARGE * crowd)
    gists = [editable.capture(_ids(tokenizer, fact.statement)) for fact in facts]
    small, large = (
        _largest_kept(editable, tokenizer, ReferencePool.of(gists[:size]), facts[: min(ask, crowd)])
        for size in (crowd, len(facts))
    )
    threshold = min(_MOST, small)
    growth = (_logit(threshold) - _logit(min(threshold, large))) / math.log(_LARGE)
    router = replace(adapter.router, threshold=round(threshold, 3), growth=round(min(_MOST_GROWTH, growth), 2))
    replace(adapter, router=router).save(folder)
    return router


def _largest_kept(
    editable: EditableModel, tokenizer: PreTrainedTokenizerBase, pool: ReferencePool, facts: list[Fact]
) -> float:
    """The zero-gist's weight that `KEPT` of the questions stay below."""
    none = sorted(_none_weight(editable, tokenizer, pool, fact.question) for fact in facts)
    return none[min(len(none) - 1, int(KEPT * len(none)))]


def _logit(share: float) -> float:
    return math.log(max(share, 1e-6)) - math.log1p(-share)


def _none_weight(
    editable: EditableModel, tokenizer: PreTrainedTokenizerBase, pool: ReferencePool, question: str
) -> float:
    """Weight of the zero-gist where the answer begins."""
    message = [{"role": "user", "content": question}]
    text = str(tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False))
    editable.logits(_ids(tokenizer, text), pool)
    assert editable.picks is not None
    return float(editable.picks.none[-1])


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]
