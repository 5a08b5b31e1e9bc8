"""Set the router's gate when training has ended: as strict as rightly routed questions allow, at two sizes.

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
_AT_ONCE = 64
_LARGE = 10
_NEVER = 2.0
_MOST, _MOST_GROWTH = 0.95, 1.0


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
    texts = [_ids(tokenizer, fact.statement) for fact in facts]
    gists = [
        gist
        for first in range(0, len(texts), _AT_ONCE)
        for gist in editable.capture_all(texts[first : first + _AT_ONCE])
    ]
    small, large = (
        _largest_kept(editable, tokenizer, ReferencePool.of(gists[:size]), facts[: min(ask, crowd)])
        for size in (crowd, len(facts))
    )
    threshold = min(_MOST, small)
    growth = (_logit(threshold) - _logit(min(_MOST, large))) / math.log(_LARGE)
    growth = max(-_MOST_GROWTH, min(_MOST_GROWTH, growth))
    router = replace(adapter.router, threshold=round(threshold, 3), growth=round(growth, 2))
    replace(adapter, router=router).save(folder)
    return router


def _largest_kept(
    editable: EditableModel, tokenizer: PreTrainedTokenizerBase, pool: ReferencePool, facts: list[Fact]
) -> float:
    """The zero-gist's weight that `KEPT` of the questions stay below; where the wrong edit comes first none should."""
    asked = ((place, *_first_pick(editable, tokenizer, pool, fact.question)) for place, fact in enumerate(facts))
    none = sorted(weight for place, edit, weight in asked if edit == place)
    return none[min(len(none) - 1, int(KEPT * len(none)))] if none else _NEVER


def _logit(share: float) -> float:
    return math.log(max(share, 1e-6)) - math.log1p(-share)


def _first_pick(
    editable: EditableModel, tokenizer: PreTrainedTokenizerBase, pool: ReferencePool, question: str
) -> tuple[int, float]:
    """Where the answer begins: the edit that comes first, and the weight of the zero-gist."""
    message = [{"role": "user", "content": question}]
    text = str(tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False))
    editable.logits(_ids(tokenizer, text), pool)
    assert editable.picks is not None
    return int(editable.picks.edits[-1, 0]), float(editable.picks.none[-1])


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]
