"""Time to the first token of a question about one of N edits: ours, and retrieval into the prompt of stock vLLM.

Every question is new to all engines and is asked once by every way, in rotated order. A rival's time is that of its
search and of its longer prompt.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from benchmarks.engines import EngineProcess
from benchmarks.questions import encode, fact_set, facts
from benchmarks.stats import ratios, summary
from incomes_plugin.lab.data.facts import Fact
from incomes_plugin.lab.evaluation.interface import EvalEdit
from incomes_plugin.lab.evaluation.rivals.bm25 import Bm25
from incomes_plugin.lab.evaluation.rivals.minilm import MiniLm
from incomes_plugin.lab.evaluation.rivals.retrieval import Index

OURS = "ours"
BARE = "stock, no edit"


@dataclass(frozen=True)
class RivalWork:
    """Numbers of edits, and questions asked at each."""

    edits: tuple[int, ...] = (1000, 10_000)
    questions: int = 40


def measure(
    engines: Mapping[str, EngineProcess], base: Path, work: RivalWork, progress: Callable[[str], None]
) -> dict[str, object]:
    """Milliseconds to the first token and their ratio to ours, by number of edits and way.

    Args:
        engines: `stock`, and `asking` with the facts in it.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    found: dict[str, object] = {}
    for edits in work.edits:
        texts = [fact.statement for fact in facts(edits)]
        asked = random.Random(edits).sample(facts(edits), min(work.questions + 1, edits))
        found[str(edits)] = ways(engines, tokenizer, texts, asked, fact_set(edits))
        progress(f"rivals: {edits:,} edits done")
    return found


def ways(
    engines: Mapping[str, EngineProcess], tokenizer: Any, texts: Sequence[str], asked: Sequence[Fact], edit_set: str
) -> dict[str, object]:
    """Every way in turn for every question; the first question warms up."""
    indices: dict[str, tuple[Index, int]] = {}
    for kind, made in (("bm25", Bm25(texts)), ("minilm", MiniLm(texts))):
        indices |= {f"{kind}-{top}": (made, top) for top in (1, 5)}
    names = [BARE, OURS, *indices]
    ms: dict[str, list[float]] = {name: [] for name in names}
    for turn, fact in enumerate(asked):
        text = fact.question
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            # A number of its own in front keeps the prompts of two ways apart in a prefix cache.
            question = f"({turn}.{names.index(name)}) {text}"
            start_s = time.perf_counter()
            context: list[EvalEdit] = []
            if name in indices:
                index, top = indices[name]
                context = [EvalEdit(place, texts[place]) for place in index.best(text, top)]
            ids = encode(tokenizer, question, context)
            engine = engines["asking" if name == OURS else "stock"]
            engine.generate([ids], 1, edit_set if name == OURS else None)
            if turn:
                ms[name].append(1000 * (time.perf_counter() - start_s))
    return {
        name: {"first_token_ms": summary(own, 1), "ratio_to_ours": summary(ratios(own, ms[OURS]))}
        for name, own in ms.items()
    }
