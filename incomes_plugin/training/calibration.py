"""Set the router's gate when training has ended: as strict as rightly routed questions allow, at two sizes.

The softmax over the zero-gist and k edits says too rarely "none": it is taken over the best of N edits. So the
threshold is read off from training-part facts among `CROWD` edits, and from published edits where there are some, which
are asked about in more ways; and the growth of the zero-gist with N from as many questions among ten times as many
facts: one setting then holds for every N.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from incomes_plugin.gist.types import Gist
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.selection.routing import CROWD, Router
from incomes_plugin.training.data.corpus import EditRecord
from incomes_plugin.training.data.facts import FactSource

ASK = 300
"""Questions at each size."""

KEPT, KEPT_LARGE = 0.99, 0.98
"""Shares of the rightly routed questions that must go on reading in the small pool and in the large one, where requests
that have nothing to do with any edit find something alike more often."""

_SEED = 123
_AT_ONCE = 64
_LARGE = 10
_NEVER = 2.0
_MOST, _MOST_GROWTH = 0.97, 1.5


def calibrate(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord] = (),
    *,
    crowd: int = CROWD,
    ask: int = ASK,
) -> Router:
    """Write threshold and growth into the adapter in `folder` and return its router.

    Args:
        records: published edits of the training part.
        crowd: edits of the small pool; the large one has ten times as many.
    """
    adapter = EditAdapter.load(folder)
    if adapter.router is None:
        raise ValueError("only routed selection has a gate")
    editable = EditableModel.load(folder, torch.float32)
    editable.adapter = replace(adapter, router=replace(adapter.router, threshold=_NEVER, growth=0.0))
    facts = FactSource(_SEED, held_out=False).distinct(_LARGE * crowd)
    gists = _captured(editable, tokenizer, [fact.statement for fact in facts])
    questions = [fact.question for fact in facts[: min(ask, crowd)]]
    small, large = (
        _largest_kept(editable, tokenizer, ReferencePool.of(gists[:size]), questions, kept)
        for size, kept in ((crowd, KEPT), (len(facts), KEPT_LARGE))
    )
    threshold = small
    if published := _fitting(editable, tokenizer, records)[:crowd]:
        pool = ReferencePool.of(_captured(editable, tokenizer, [record.statement for record in published]))
        asked = [record.prompts[0] for record in published[:ask]]
        threshold = max(small, _largest_kept(editable, tokenizer, pool, asked, KEPT))
    threshold = min(_MOST, threshold)
    growth = (_logit(threshold) - _logit(min(_MOST, large))) / math.log(_LARGE)
    growth = max(-_MOST_GROWTH, min(_MOST_GROWTH, growth))
    router = replace(adapter.router, threshold=round(threshold, 3), growth=round(growth, 2))
    replace(adapter, router=router).save(folder)
    return router


def _fitting(
    editable: EditableModel, tokenizer: PreTrainedTokenizerBase, records: Sequence[EditRecord]
) -> list[EditRecord]:
    """Records that are short enough, in an order that mixes their sources."""
    longest = editable.adapter.max_edit_tokens
    found = [record for record in records if len(_ids(tokenizer, record.statement)) <= longest]
    random.Random(_SEED).shuffle(found)
    return found


def _captured(editable: EditableModel, tokenizer: PreTrainedTokenizerBase, statements: list[str]) -> list[Gist]:
    parts = (statements[first : first + _AT_ONCE] for first in range(0, len(statements), _AT_ONCE))
    return [gist for part in parts for gist in editable.capture_all([_ids(tokenizer, text) for text in part])]


def _largest_kept(
    editable: EditableModel,
    tokenizer: PreTrainedTokenizerBase,
    pool: ReferencePool,
    questions: Sequence[str],
    kept: float,
) -> float:
    """The zero-gist's weight that a share `kept` of the questions stay below; with a wrong edit first none should.

    Question i is about edit i of the pool.
    """
    asked = ((place, *_first_pick(editable, tokenizer, pool, question)) for place, question in enumerate(questions))
    none = sorted(weight for place, edit, weight in asked if edit == place)
    return none[min(len(none) - 1, int(kept * len(none)))] if none else _NEVER


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
