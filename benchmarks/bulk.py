"""Bulk compression: capture of many edits on the serving engine, against stock prefill of the very same tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.adapters import prompt
from benchmarks.engines import EngineProcess
from benchmarks.stats import ratios, summary
from incomes_plugin.model.adapter import EditAdapter


@dataclass(frozen=True)
class BulkWork:
    """What one run compresses."""

    rounds: int = 3
    edits: int = 32
    text_tokens: int = 24


def measure(
    stock: EngineProcess, edited: EngineProcess, adapter: EditAdapter, work: BulkWork, progress: Callable[[str], None]
) -> dict[str, object]:
    """Edits per second, and their ratio to prefill."""
    capture_s: list[float] = []
    prefill_s: list[float] = []
    for turn in range(-1, work.rounds):
        texts = [prompt(7_000_000 + 1000 * (turn + 1) + i, work.text_tokens) for i in range(work.edits)]
        prompts = [adapter.template.capture_ids(text) for text in texts]
        captured, prefilled = run_pair(stock, edited, texts, prompts, first_capture=turn % 2 == 0)
        if turn >= 0:
            capture_s.append(captured)
            prefill_s.append(prefilled)
        progress(f"bulk: round {turn + 1} of {work.rounds}")
    tokens = work.edits * len(adapter.template.capture_ids(prompt(0, work.text_tokens)))
    return {
        "tokens_per_edit": work.text_tokens,
        "tokens_per_run": tokens,
        "edits_per_s": summary([work.edits / s for s in capture_s]),
        "capture_tokens_per_s": summary([tokens / s for s in capture_s], 1),
        "prefill_tokens_per_s": summary([tokens / s for s in prefill_s], 1),
        "ratio_to_prefill": summary(ratios(prefill_s, capture_s)),
    }


def run_pair(
    stock: EngineProcess, edited: EngineProcess, texts: list[list[int]], prompts: list[list[int]], first_capture: bool
) -> tuple[float, float]:
    """Seconds of capture and of prefill, in alternating order."""
    if first_capture:
        captured = edited.capture(texts)
        return captured, stock.generate(prompts, 1).seconds
    prefilled = stock.generate(prompts, 1).seconds
    return edited.capture(texts), prefilled
