"""Two engines side by side, one with the fact gate: success, unrelated answers, time per token.

Gists are captured once, by the engine without it, and committed to both.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.fact_gate_found import SUCCESS, rotated, share
from benchmarks.stats import ratios, summary
from incomes_plugin.evaluation.backends.vllm import EDITS_PER_COMMIT, VllmGenerator, _Pool
from incomes_plugin.evaluation.harness import unrelated_questions
from incomes_plugin.evaluation.interface import Answer, EditText, PoolHandle, Question, messages
from incomes_plugin.evaluation.metrics import Outcome, is_right
from incomes_plugin.evaluation.run import Workload
from incomes_plugin.evaluation.unrelated import PASSAGES
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotDelta, SnapshotRef, add_to_digest
from incomes_plugin.vllm.config import FACT_GATE_VARIABLE

OUTPUT_TOKENS = 32
PROMPT_TOKENS = 256
BATCHES = (1, 8)

_ANSWER_TOKENS = 24
_CONTEXT_TOKENS = 1024
_SHIFT_TOKENS = 7
_RETIRED_AFTER_S = 0.5
console = Console(stderr=True, highlight=False)


class Engine(VllmGenerator):
    """An engine that takes gists made elsewhere and can be timed."""

    def captured(self, edits: Sequence[EditText]) -> list[bytes]:
        """A blob of every edit, in order."""
        parts = [edits[i : i + EDITS_PER_COMMIT] for i in range(0, len(edits), EDITS_PER_COMMIT)]
        return [blob for part in parts for blob in self._run(self._capture(part))[0]]

    def committed(self, name: str, blobs: Sequence[bytes]) -> PoolHandle:
        """An edit set of these gists, in chunks of deltas."""
        snapshot, digest, base = SnapshotRef(name, 0, EMPTY_DIGEST, 0), EMPTY_DIGEST, None
        for first in range(0, len(blobs), EDITS_PER_COMMIT):
            chunk = blobs[first : first + EDITS_PER_COMMIT]
            for place in range(first, first + len(chunk)):
                digest = add_to_digest(digest, str(place), 1)
            snapshot = SnapshotRef(name, snapshot.version + 1, digest, first + len(chunk))
            self._run(self._edits.commit(SnapshotDelta(base, snapshot, tuple(chunk))))
            base = snapshot.id
        return _Pool(snapshot.num_edits, (), 0, snapshot)

    def counters(self) -> dict[str, int]:
        """Of the fact gate."""
        return self._run(self._edits.status()).fact_gate

    def seconds(self, prompts: Sequence[Sequence[int]], pool: PoolHandle | None, tokens: int) -> float:
        """Time to answer all prompts at once with so many tokens each."""
        start_s = time.perf_counter()
        self._run(self._all(prompts, pool, tokens))
        return time.perf_counter() - start_s

    async def _all(self, prompts: Sequence[Sequence[int]], pool: PoolHandle | None, tokens: int) -> None:
        from vllm import SamplingParams

        from incomes_plugin.vllm.pin import EditScope

        snapshot = getattr(pool, "snapshot", None)
        scope = EditScope(snapshot.edit_set, snapshot) if snapshot else EditScope(None, None)
        params = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
        await asyncio.gather(*(self._edits.generate(prompt, params, scope) for prompt in prompts))

    def close(self) -> None:
        """Stop the engine, once released edit sets are gone."""
        self._run(asyncio.sleep(_RETIRED_AFTER_S))
        super().close()


class Served:
    """Both engines; a context manager that stops them."""

    def __init__(self, model: Path, largest: Sequence[EditText], gate_entries: int) -> None:
        self._engines = {"exact": _engine(model, largest, 0), "gate": _engine(model, largest, gate_entries)}
        console.print("engines started")
        self._blobs = self._engines["exact"].captured(largest)
        console.print(f"{len(self._blobs):,} edits captured")
        self._pools: dict[str, PoolHandle] = {}
        self._size = 0

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        for engine in self._engines.values():
            engine.close()

    def quality(self, work: Workload) -> dict[str, Any]:
        """Success and unrelated answers."""
        pools, engines = self._active(len(work.selection.edits)), self._engines
        questions = [q for q in work.selection.questions if q.type in SUCCESS]
        unrelated = unrelated_questions()
        before = engines["gate"].counters()
        answers = {name: _ask(each, [*questions, *unrelated], pools[name]) for name, each in engines.items()}
        after = engines["gate"].counters()
        plain = _ask(engines["exact"], unrelated, None)
        exact, gate = (_rights(questions, answers[name]) for name in ("exact", "gate"))
        return {
            "success": {"exact": share(torch.tensor(exact)), "gate": share(torch.tensor(gate))},
            "success_difference_points": round(100 * (sum(gate) - sum(exact)) / len(questions), 2),
            "right_only_with_gate": sum(g and not e for g, e in zip(gate, exact, strict=True)),
            "right_only_without": sum(e and not g for g, e in zip(gate, exact, strict=True)),
            "answers_that_differ": sum(
                a.tokens != b.tokens for a, b in zip(answers["gate"], answers["exact"], strict=True)
            ),
            "answers": len(answers["gate"]),
            "unrelated_changed": {
                name: share(
                    torch.tensor([a.tokens != b.tokens for a, b in zip(said[len(questions) :], plain, strict=True)])
                )
                for name, said in answers.items()
            },
            "gate_counters": {
                name: count - (before[name] if name.startswith("tokens_") else 0) for name, count in after.items()
            },
        }

    def times(self, work: Workload, rounds: int) -> dict[str, Any]:
        """Milliseconds a token, the sides in turns: short questions' answers, and a prompt that is read."""
        pools, exact = self._active(len(work.selection.edits)), self._engines["exact"]
        sides: list[tuple[str, Engine, PoolHandle | None]] = [
            ("none", exact, None),
            ("exact", exact, pools["exact"]),
            ("gate", self._engines["gate"], pools["gate"]),
        ]
        questions = [q for q in work.selection.questions if q.type in SUCCESS]
        short = [exact.chat_ids(messages(question)) for question in questions]
        passage = exact.text_ids(" ".join(PASSAGES))
        spent: dict[str, dict[str, list[float]]] = {}
        for turn in range(-1, rounds):
            shift = turn + 1
            for name, engine, pool in rotated(sides, turn):
                if turn < 0:
                    engine.seconds(short[: max(BATCHES)], pool, OUTPUT_TOKENS)
                    continue
                ids = passage[_SHIFT_TOKENS * shift :][:PROMPT_TOKENS]  # begins elsewhere: no block is cached
                found = {f"prompt of {PROMPT_TOKENS} tokens": engine.seconds([ids], pool, 1) / PROMPT_TOKENS}
                for batch in BATCHES:
                    prompts = [short[(shift * batch + i) % len(short)] for i in range(batch)]
                    found |= _answer_times(engine, pool, prompts)
                for label, seconds in found.items():
                    spent.setdefault(label, {}).setdefault(name, []).append(1000 * seconds)
        return {"ms_a_token": {label: _summaries(times) for label, times in spent.items()}}

    def _active(self, edits: int) -> dict[str, PoolHandle]:
        """The first `edits` edits in both engines; what was active before is released."""
        if self._size != edits:
            for name, pool in self._pools.items():
                self._engines[name].release(pool)
            self._pools = {
                name: engine.committed(f"gate-{edits}", self._blobs[:edits]) for name, engine in self._engines.items()
            }
            self._size = edits
        return self._pools


def _engine(model: Path, edits: Sequence[EditText], gate_entries: int) -> Engine:
    """Start one; the plugin reads its setting from the environment of the engine's process."""
    os.environ[FACT_GATE_VARIABLE] = str(gate_entries)
    return Engine(model, _CONTEXT_TOKENS, largest=edits, dtype="auto")


def _answer_times(engine: Engine, pool: PoolHandle | None, prompts: Sequence[Sequence[int]]) -> dict[str, float]:
    """Seconds a token of the whole answer, its question included, and of what comes after its first token."""
    first_s = engine.seconds(prompts, pool, 1)
    whole_s = engine.seconds(prompts, pool, OUTPUT_TOKENS + 1)
    requests = f"{len(prompts)} request{'s' if len(prompts) > 1 else ''}"
    return {
        f"answer, {requests}": whole_s / len(prompts) / (OUTPUT_TOKENS + 1),
        f"decode alone, {requests}": (whole_s - first_s) / len(prompts) / OUTPUT_TOKENS,
    }


def _summaries(times: dict[str, list[float]]) -> dict[str, Any]:
    return {
        **{name: summary(values) for name, values in times.items()},
        "ratio": summary(ratios(times["gate"], times["exact"])),
    }


def _ask(each: Engine, questions: Sequence[Question], pool: PoolHandle | None) -> list[Answer]:
    """Greedy answers."""
    return each.generate([each.chat_ids(messages(question)) for question in questions], pool, _ANSWER_TOKENS)


def _rights(questions: Sequence[Question], answers: Sequence[Answer]) -> list[bool]:
    """Which questions are answered right, to the letter."""
    return [is_right(Outcome(q, a), strict=True) for q, a in zip(questions, answers, strict=False)]
