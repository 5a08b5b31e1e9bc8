"""`python -m benchmarks.fact_gate`: the fact gate against a search of all entries, on the default model's own edits.

Two engines side by side, one with the gate; the gists are captured once and committed to both. On the reference path:
recall of the right edit, and unrelated prompts that read. Through vLLM: success, unrelated answers that change, time
per token, both engines in turns. Writes fact-gate.json and fact-gate.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.fact_gate_report import markdown
from benchmarks.stats import ratios, summary
from incomes_plugin.evaluation.backends.vllm import EDITS_PER_COMMIT, VllmGenerator, _Pool
from incomes_plugin.evaluation.harness import unrelated_questions
from incomes_plugin.evaluation.interface import Answer, EditText, PoolHandle, Question, messages
from incomes_plugin.evaluation.invented import invented
from incomes_plugin.evaluation.metrics import Outcome, Share, is_right
from incomes_plugin.evaluation.provenance import provenance
from incomes_plugin.evaluation.run import RunOptions, Workload
from incomes_plugin.evaluation.unrelated import PASSAGES, UNRELATED_PROMPTS
from incomes_plugin.facts.gate.file import FactGate
from incomes_plugin.facts.gate.fit import Asked, Reader, Unrelated, filled, unrelated_prompts
from incomes_plugin.facts.gate.memory import next_size
from incomes_plugin.gist import load_gists
from incomes_plugin.model import DEFAULT_MODEL_DIR
from incomes_plugin.model.hf import ReferencePool
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotDelta, SnapshotRef, add_to_digest
from incomes_plugin.selection.routing import Router, Routes, choose
from incomes_plugin.vllm.config import FACT_GATE_VARIABLE

RESULTS = Path(__file__).parent / "results"
SEED, FRESH_SEED = 2027, 2028
SUCCESS = ("rewrite", "rephrase")
ENTRIES_PER_EDIT = 6.5
"""Room in the memory for each edit of the largest set; the default model stores 5.6 entries."""

OUTPUT_TOKENS = 32
_RETIRED_AFTER_S = 0.5
_NEVER = 2.0
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


def engine(model: Path, edits: Sequence[EditText], gate_entries: int) -> Engine:
    """Start one; the plugin reads its setting from the environment of the engine's process."""
    os.environ[FACT_GATE_VARIABLE] = str(gate_entries)
    return Engine(model, 1024, largest=edits, dtype="auto")


@torch.inference_mode()
def found(reader: Reader, gate: FactGate, blobs: Sequence[bytes], fingerprint: str, ask: int, data: Path | None) -> Any:
    """Recall and false fires on the reference path, gate and exact search."""
    gists = [gist for blob in blobs for gist in load_gists(blob, fingerprint)]
    routes = ReferencePool.of(gists).routes
    memory = filled(gate, routes)
    questions = [
        (place, query.prompt, query.answers[0])
        for place, record in enumerate(invented(len(blobs), SEED, 0)[:ask])
        for query in record.queries
        if query.type in SUCCESS
    ]
    firsts = [reader.asked([question]) for question in questions]
    first = Asked(torch.stack([a.directions[0] for a in firsts]), torch.stack([a.edits[0] for a in firsts]))
    later = Asked(torch.cat([a.directions[1:] for a in firsts]), torch.cat([a.edits[1:] for a in firsts]))
    sides = {"exact": routes, "gate": replace(routes, preselection=memory)}
    # What is found, whatever the threshold says about reading it.
    unread = replace(memory, gate=replace(gate, threshold=_NEVER))
    open_sides = {"exact": routes, "gate": replace(routes, preselection=unread)}
    silent = {
        "unrelated": reader.unrelated(UNRELATED_PROMPTS),
        "fresh": reader.unrelated(unrelated_prompts(1_000, data, FRESH_SEED)),
    }
    return {
        "entries": len(routes.keys),
        "memory_bytes": memory.rows.nbytes + gate.hidden.prototypes.nbytes,
        "key_bytes": routes.keys.to(torch.bfloat16).nbytes,
        "widest_unit": memory.width,
        "not_read_back": memory.unread,
        "unit_full": len(memory.exact) - memory.unread,
        "recall_at_8": {
            name: {"first_token": recall(side, reader, first), "later_tokens": recall(side, reader, later)}
            for name, side in open_sides.items()
        },
        "false_fire": {
            name: {kind: fires(side, reader, prompts) for kind, prompts in silent.items()}
            for name, side in sides.items()
        },
        "search_ms": search_times(reader.router, sides, first.directions, silent["unrelated"].directions),
    }


def recall(routes: Routes, reader: Reader, asked: Asked) -> dict[str, float]:
    """Share of tokens that have the right edit among their eight best."""
    router = replace(reader.router, top_k=8, threshold=_NEVER)
    picks = [choose(router, part, routes) for part in asked.directions.split(64)]
    edits, real = torch.cat([p.edits for p in picks]), torch.cat([p.weights for p in picks]) > 0
    return share(((edits == asked.edits[:, None]) & real).any(dim=1))


def fires(routes: Routes, reader: Reader, silent: Unrelated) -> dict[str, Any]:
    """Shares of prompts and of tokens that read an edit."""
    parts = silent.directions.split(64)
    reads = torch.cat([choose(reader.router, part, routes).weights.any(dim=1) for part in parts])
    prompts = torch.zeros(int(silent.prompts.max()) + 1).scatter_reduce(0, silent.prompts, reads.float(), "amax")
    return {"prompts": share(prompts > 0), "tokens": share(reads)}


def share(hits: torch.Tensor) -> dict[str, float]:
    """A share with its interval."""
    value = Share.of(hits.tolist())
    return {"value": value.value, "ci_low": value.ci_low, "ci_high": value.ci_high, "n": value.n}


def search_times(router: Router, sides: dict[str, Routes], asking: torch.Tensor, prompts: torch.Tensor) -> Any:
    """Milliseconds of processor time to pick, in turns: 1 and 8 tokens that ask, 256 of unrelated prompts.

    One thread, keys in bfloat16 as served; processor time, so that a busy machine does not show.
    """
    sides = {name: replace(side, keys=side.keys.to(torch.bfloat16)) for name, side in sides.items()}
    kinds = {"1 that asks": asking[:1], "8 that ask": asking[:8], "256 of unrelated prompts": prompts[-256:]}
    found: dict[str, Any] = {}
    for label, some in kinds.items():
        times: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(-2, 15):
            for name, side in rotated(sides, turn):
                start_s = time.process_time()
                choose(router, some, side)
                if turn >= 0:
                    times[name].append(1000 * (time.process_time() - start_s))
        found[label] = {name: summary(values) for name, values in times.items()}
        found[label]["ratio"] = summary(ratios(times["gate"], times["exact"]))
    return found


def served(engines: dict[str, Engine], blobs: Sequence[bytes], work: Workload, rounds: int) -> Any:
    """Success, unrelated answers and time per token of both engines."""
    pools = {name: each.committed(f"gate-{len(blobs)}", blobs) for name, each in engines.items()}
    questions = [q for q in work.selection.questions if q.type in SUCCESS]
    unrelated = unrelated_questions()
    asked = [*questions, *unrelated]
    answers = {name: ask(each, asked, pools[name]) for name, each in engines.items()}
    plain = ask(engines["exact"], unrelated, None)
    right = {name: rights(questions, said) for name, said in answers.items()}
    counters = engines["gate"].counters()
    result = {
        "success": {name: share(torch.tensor(hits)) for name, hits in right.items()},
        "success_difference_points": round(100 * (sum(right["gate"]) - sum(right["exact"])) / len(questions), 2),
        "answers_that_differ": sum(
            a.tokens != b.tokens for a, b in zip(answers["gate"], answers["exact"], strict=True)
        ),
        "answers": len(asked),
        "unrelated_changed": {
            name: share(
                torch.tensor([a.tokens != b.tokens for a, b in zip(said[len(questions) :], plain, strict=True)])
            )
            for name, said in answers.items()
        },
        "gate_counters": counters,
        "time": time_per_token(engines, pools, questions, rounds),
    }
    for name, each in engines.items():
        each.release(pools[name])
    return result


def ask(each: Engine, questions: Sequence[Question], pool: PoolHandle | None) -> list[Answer]:
    """Greedy answers."""
    return each.generate([each.chat_ids(messages(question)) for question in questions], pool, 24)


def rights(questions: Sequence[Question], answers: Sequence[Answer]) -> list[bool]:
    """Which questions are answered right, to the letter."""
    return [is_right(Outcome(q, a), strict=True) for q, a in zip(questions, answers, strict=False)]


def time_per_token(
    engines: dict[str, Engine], pools: dict[str, PoolHandle], questions: Sequence[Question], rounds: int
) -> dict[str, Any]:
    """Milliseconds a token, in turns: answers of one and of eight requests, and a long prompt."""
    exact = engines["exact"]
    short = [exact.chat_ids(messages(question)) for question in questions]
    passage = exact.text_ids(" ".join(PASSAGES))
    runs = {
        "answer, 1 request": (1, OUTPUT_TOKENS),
        "answer, 8 requests": (8, OUTPUT_TOKENS),
        "prompt of 256 tokens": (0, 1),
    }
    sides = {"none": (exact, None), "exact": (exact, pools["exact"]), "gate": (engines["gate"], pools["gate"])}
    found: dict[str, Any] = {}
    for label, (batch, tokens) in runs.items():
        times: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(-1, rounds):
            first = (turn + 1) * 8
            prompts = [short[(first + i) % len(short)] for i in range(batch)]
            prompts = prompts or [passage[7 * (turn + 1) : 7 * (turn + 1) + 256]]
            count = batch * tokens or 256
            for name, (each, pool) in rotated(sides, turn):
                spent_ms = 1000 * each.seconds(prompts, pool, tokens) / count
                if turn >= 0:
                    times[name].append(spent_ms)
        found[label] = {name: summary(values) for name, values in times.items()}
        found[label]["ratio"] = summary(ratios(times["gate"], times["exact"]))
    return found


def rotated(sides: dict[str, Any], turn: int) -> list[tuple[str, Any]]:
    """Another one begins in every round."""
    items = list(sides.items())
    return items[turn % len(items) :] + items[: turn % len(items)]


def main(argv: Sequence[str]) -> int:
    """Run and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fact_gate", description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL_DIR)
    parser.add_argument("--edits", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--ask", type=int, default=100, help="edits that are asked about, three questions each")
    parser.add_argument("--rounds", type=int, default=7, help="of the timing")
    parser.add_argument("--data", type=Path, help="folder with text/, for more unrelated prompts")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    where = provenance(f"python -m benchmarks.fact_gate {' '.join(argv)}".strip())
    works = {n: Workload.draw(RunOptions("invented", edits=n, limit=args.ask, seed=SEED)) for n in args.edits}
    largest = works[max(args.edits)].selection.edits
    room = next_size(round(ENTRIES_PER_EDIT * len(largest)))
    gate, reader = FactGate.load(args.model), Reader(args.model)
    engines = {"exact": engine(args.model, largest, 0), "gate": engine(args.model, largest, room)}
    console.print("engines started")
    blobs = engines["exact"].captured(largest)
    console.print(f"{len(blobs)} edits captured")
    result: dict[str, Any] = {**where, "fact_gate_entries": room, "units": gate.hidden.num_units, "sizes": {}}
    result |= {"winners": gate.hidden.winners, "reach": gate.reach, "threshold": gate.threshold}
    try:
        for n in args.edits:
            own = blobs[:n]
            figures = found(reader, gate, own, engines["exact"].fingerprint, 2 * args.ask, args.data)
            console.print(f"{n} edits: recall and false fires done")
            result["sizes"][str(n)] = {**figures, **served(engines, own, works[n], args.rounds)}
            console.print(f"{n} edits: served")
            write(result, args.out)
    finally:
        for each in engines.values():
            each.close()
    sys.stdout.write(markdown(result))
    return 0


def write(result: dict[str, Any], folder: Path) -> None:
    """Both files; also after each size, so that a long run leaves what it has."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fact-gate.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "fact-gate.md").write_text(markdown(result))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
