"""Generated exact match on held-out invented facts with N edits active at once. Greedy, natural stop, chat template."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.training.data.facts import UNKNOWN_ANSWER, Fact, FactSource


@dataclass(frozen=True)
class HeldOutScore:
    """Shares in [0, 1] and the cost of one edit.

    Attributes:
        success: questions about edits of the pool answered exactly.
        unknown: questions no edit answers that got "I do not know".
        bytes_per_edit: mean stored keys and values, in the dtype of the pool.
        examples: some (question, expected, got).
    """

    edits: int
    asked: int
    success: float
    unknown: float
    bytes_per_edit: float
    examples: tuple[tuple[str, str, str], ...]


def score(
    editable: EditableModel, tokenizer: PreTrainedTokenizerBase, *, edits: int, ask: int, seed: int
) -> HeldOutScore:
    """Put `edits` held-out facts in one pool and ask about `ask` of them, and `ask // 2` unknown facts."""
    facts = FactSource(seed, held_out=True).distinct(edits + ask // 2)
    known, unknown = facts[:edits], facts[edits:]
    gists = [editable.capture(_ids(tokenizer, f.statement), edit_id=str(i)) for i, f in enumerate(known)]
    pool = ReferencePool.of(gists)
    asked = known[:ask]
    got = _answers(editable, tokenizer, pool, asked)
    refused = _answers(editable, tokenizer, pool, unknown)
    right = [g == f.answer for g, f in zip(got, asked, strict=True)]
    return HeldOutScore(
        edits=edits,
        asked=len(asked),
        success=sum(right) / len(asked),
        unknown=sum(g == UNKNOWN_ANSWER for g in refused) / max(1, len(unknown)),
        bytes_per_edit=sum(g.num_bytes for g in gists) / len(gists),
        examples=tuple((f.question, f.answer, g) for f, g, r in zip(asked, got, right, strict=True) if not r)[:8],
    )


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]


def _stop_id(tokenizer: PreTrainedTokenizerBase) -> int:
    return int(tokenizer.eos_token_id)  # type: ignore[arg-type]


@torch.inference_mode()
def _answers(
    editable: EditableModel, tokenizer: PreTrainedTokenizerBase, pool: ReferencePool, facts: list[Fact]
) -> list[str]:
    answers = []
    for fact in facts:
        message = [{"role": "user", "content": fact.question}]
        text = str(tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False))
        ids = editable.generate(_ids(tokenizer, text), pool, max_tokens=16, stop_id=_stop_id(tokenizer))
        answers.append(str(tokenizer.decode(ids)).strip())
    return answers
