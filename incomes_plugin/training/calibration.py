"""Set the router's threshold when training has ended: as low as questions about edits of the pool allow.

The softmax over the zero-gist and k edits says too rarely "none": it is taken over the best of N edits, and in training
over a batch's. So the threshold is read off from training-part facts in a large pool.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.training.data.facts import FactSource

EDITS, ASK, KEPT = 1000, 200, 0.97
"""Pool, questions, and the share of questions about its edits that must go on reading."""

_SEED = 123
_NEVER = 2.0


def calibrate(folder: Path, tokenizer: PreTrainedTokenizerBase, *, edits: int = EDITS, ask: int = ASK) -> float:
    """Write the threshold into the adapter in `folder` and return it."""
    adapter = EditAdapter.load(folder)
    if adapter.router is None:
        raise ValueError("only routed selection has a threshold")
    editable = EditableModel.load(folder, torch.float32)
    editable.adapter = replace(adapter, router=replace(adapter.router, threshold=_NEVER))
    facts = FactSource(_SEED, held_out=False).distinct(edits)
    pool = ReferencePool.of([editable.capture(_ids(tokenizer, fact.statement)) for fact in facts])
    none = sorted(_none_weight(editable, tokenizer, pool, fact.question) for fact in facts[:ask])
    threshold = round(min(0.5, none[min(len(none) - 1, int(KEPT * len(none)))]), 3)
    replace(adapter, router=replace(adapter.router, threshold=threshold)).save(folder)
    return threshold


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
