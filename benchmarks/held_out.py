"""`python -m benchmarks.held_out [--model DIR] [--edits 1 10 100 1000]`: does an edit hold, through real vLLM?

Held-out invented facts (no invented word of theirs occurs in training), all N edits active at once, chat template,
greedy, natural stop. Writes benchmarks/results/held_out.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import provenance
from incomes_plugin.model import DEFAULT_MODEL_DIR
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotDelta, SnapshotRef, add_to_digest
from incomes_plugin.training.data.facts import UNKNOWN_ANSWER, Fact, FactSource

RESULT = Path(__file__).parent / "results" / "held_out.json"
SEED = 2027
"""Not a seed that any checkpoint was chosen by."""
UNRELATED = (
    "Hello", "Thank you", "Who are you?", "What can you do?", "Goodbye", "Tell me a story.", "What is two plus two?",
    "Write a poem about the sea.", "How do I cook rice?", "Translate good morning into French.",
)  # fmt: skip


@dataclass(frozen=True)
class Share:
    """A share with its 95 % Wilson interval."""

    value: float
    ci_low: float
    ci_high: float
    n: int

    @classmethod
    def of(cls, hits: Sequence[bool]) -> Share:
        """From single outcomes."""
        n, p, z = len(hits), sum(hits) / len(hits), 1.96
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return cls(round(p, 4), round(middle - half, 4), round(middle + half, 4), n)


@dataclass(frozen=True)
class Outcome:
    """One answer: its text, tokens, and the edit with the largest selection weight."""

    text: str
    tokens: tuple[int, ...]
    top_edit: str | None


class HeldOut:
    """Asks one engine about pools of growing size."""

    def __init__(self, llm: Any, edits: Any, tokenizer: Any, seed: int) -> None:
        self.seed = seed
        self.llm = llm
        self.edits = edits
        self.tokenizer = tokenizer

    async def measure(self, num_edits: int, ask: int) -> dict[str, Any]:
        """Figures at `num_edits` edits active at once."""
        facts = FactSource(self.seed + num_edits, held_out=True).distinct(num_edits + ask)
        known, strangers = facts[:num_edits], facts[num_edits:]
        snapshot, gist_bytes = await self._fill(f"eset_{num_edits}", known)
        asked = known[:ask]
        answers = await self._ask([f.question for f in asked], snapshot)
        right = [a.text == f.answer for a, f in zip(answers, asked, strict=True)]
        traced = [a.top_edit == f"edit_{i}" for i, (a, hit) in enumerate(zip(answers, right, strict=True)) if hit]
        refused = [a.text == UNKNOWN_ANSWER for a in await self._ask([f.question for f in strangers], snapshot)]
        with_pool, without = await self._ask(list(UNRELATED), snapshot), await self._ask(list(UNRELATED), None)
        return {
            "edits": num_edits,
            "success": asdict(Share.of(right)),
            "unknown_refused": asdict(Share.of(refused)),
            "attribution_of_successes": asdict(Share.of(traced)) if traced else None,
            "unrelated_unchanged": asdict(
                Share.of([a.tokens == b.tokens for a, b in zip(with_pool, without, strict=True)])
            ),
            "bytes_per_edit": round(gist_bytes / num_edits),
            "failures": [
                [f.question, f.answer, a.text] for f, a, hit in zip(asked, answers, right, strict=True) if not hit
            ][:10],
        }

    async def _fill(self, edit_set: str, facts: Sequence[Fact]) -> tuple[SnapshotRef, int]:
        from incomes_plugin.vllm.engine import CaptureJob

        jobs = [CaptureJob(f"edit_{i}", 1, tuple(self._ids(f.statement))) for i, f in enumerate(facts)]
        blobs = [c.blob for c in await self.edits.capture(jobs)]
        digest = EMPTY_DIGEST
        for job in jobs:
            digest = add_to_digest(digest, job.edit_id, job.version)
        snapshot = SnapshotRef(edit_set, 1, digest, len(jobs))
        await self.edits.commit(SnapshotDelta(None, snapshot, tuple(blobs)))
        per_gist = self.edits.adapter.shape.bytes_per_gist(self.llm.vllm_config.model_config.dtype)
        return snapshot, sum(self.edits.adapter.num_gists(len(job.token_ids)) for job in jobs) * per_gist

    async def _ask(self, questions: Sequence[str], snapshot: SnapshotRef | None) -> list[Outcome]:
        return list(await asyncio.gather(*(self._one(i, q, snapshot) for i, q in enumerate(questions))))

    async def _one(self, index: int, question: str, snapshot: SnapshotRef | None) -> Outcome:
        from vllm import SamplingParams

        from incomes_plugin.vllm.pin import EditScope

        message = [{"role": "user", "content": question}]
        text = self.tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        trace = f"held-out-{snapshot.id}-{index}" if snapshot else None
        scope = EditScope(snapshot.edit_set, snapshot, trace) if snapshot else EditScope(None, None)
        params = SamplingParams(max_tokens=24, temperature=0.0)
        output = (await self.edits.generate(self._ids(text), params, scope)).outputs[0]
        applied = (await self.edits.attribution(trace)).applied if trace else []
        top = max(applied, key=lambda a: a[2])[0] if applied else None
        return Outcome(output.text.strip(), tuple(output.token_ids), top)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


async def run(model: Path, sizes: Sequence[int], ask: int, seed: int, dtype: Any) -> list[dict[str, Any]]:
    """Start the engine and measure every size."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    from incomes_plugin.vllm.config import WORKER_CLS
    from incomes_plugin.vllm.engine import EditEngine

    args = AsyncEngineArgs(
        model=str(model), dtype=dtype, enforce_eager=True, max_model_len=512, max_num_seqs=32, disable_log_stats=True,
        distributed_executor_backend="uni", worker_cls=WORKER_CLS,
    )  # fmt: skip
    llm = AsyncLLM.from_engine_args(args)
    try:
        from transformers import AutoTokenizer

        held_out = HeldOut(llm, await EditEngine.attach(llm, model), AutoTokenizer.from_pretrained(model), seed)
        found = []
        for size in sizes:
            found.append(await held_out.measure(size, min(ask, size)))
            sys.stderr.write(f"{json.dumps({k: v for k, v in found[-1].items() if k != 'failures'})}\n")
        return found
    finally:
        llm.shutdown()


def main(argv: list[str]) -> int:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.held_out", description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL_DIR)
    parser.add_argument("--edits", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--ask", type=int, default=200)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args(argv)
    os.environ |= {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    os.environ |= {"VLLM_PLUGINS": "incomes", "INCOMES_POOL_GISTS": str(40 * max(args.edits))}
    found = asyncio.run(run(args.model, args.edits, args.ask, args.seed, args.dtype))
    result = provenance(argv) | {"command": f"python -m benchmarks.held_out {' '.join(argv)}".strip(), "pools": found}
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
