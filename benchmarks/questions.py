"""Edits that say something, and prompts that ask for one of them: made-up facts that no adapter has learned from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from incomes_plugin.lab.data.facts import Fact, FactSource
from incomes_plugin.lab.data.unrelated import PASSAGES
from incomes_plugin.lab.evaluation.interface import EvalEdit, EvalQuestion, messages

SEED = 17


@cache
def facts(count: int) -> tuple[Fact, ...]:
    """The first `count` facts, always the same."""
    return tuple(FactSource(SEED, held_out=True).distinct(count))


def fact_set(count: int) -> str:
    """Name of the edit set of the first `count` facts."""
    return f"facts_{count}"


def encode(tokenizer: Any, question: str, context: Sequence[EvalEdit] = ()) -> list[int]:
    """Token ids of the chat, with edits in front where there are any."""
    asked = EvalQuestion("bench", "rewrite", None, question, (), None, cloze=False)
    turns = [{"role": turn.role, "content": turn.content} for turn in messages(asked, context)]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return list(tokenizer.encode(text, add_special_tokens=False))


def asking(tokenizer: Any, fact: Fact, tokens: int, seed: int) -> list[int]:
    """A chat of at most `tokens` tokens, and hardly fewer, whose only turn is a text and a question about a fact. The
    question is the end of what routing looks at, the text the rest."""
    text = PASSAGES[seed % len(PASSAGES) :] + PASSAGES[: seed % len(PASSAGES)]
    words = " ".join(text).split()
    least, most = 0, len(words)
    while least < most:
        count = (least + most + 1) // 2
        fits = len(encode(tokenizer, _after(words[:count], fact))) <= tokens
        least, most = (count, most) if fits else (least, count - 1)
    return encode(tokenizer, _after(words[:least], fact))


def _after(words: Sequence[str], fact: Fact) -> str:
    return "\n\n".join(part for part in (" ".join(words), fact.question) if part)
