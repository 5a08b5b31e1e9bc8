"""`python -m benchmarks.routing`: recall, milliseconds and bytes of routing among many edits, exact and by the index.

Edits are invented ones whose names no training saw; the first ones are asked for, twice each. Their features are
captured once (half an hour of one core for 100,000 edits) and kept in `--cache`. More edits than were captured are
simulated: real ones again and again, every token moved, so that each has near copies among them that are no answer.
A question is timed alone, exact and by the index in turn; the machine should do nothing else. Writes routing.json and
routing.md.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.stats import summary
from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.lab.adapt.cache import FeatureCache
from incomes_plugin.lab.adapt.features import FrozenBase, Ragged
from incomes_plugin.lab.adapt.plan import encode
from incomes_plugin.lab.data.facts import FactSource
from incomes_plugin.lab.provenance import provenance
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.decoder import Decoder
from incomes_plugin.model.resolve import resolve
from incomes_plugin.pool.table import ROW_TOKENS
from incomes_plugin.selection.candidates import best_edits
from incomes_plugin.selection.routing import RouteKeys, Router, distances_from_end
from incomes_plugin.selection.token_index import ArenaIndex

RESULTS = Path(__file__).parent / "results"
SEED = 12345
DEPTHS = (1, 4, 8)
LATE_EDITS = 1000
MOVED = 0.5
"""Length of what is added to a simulated token, of length 1: its cosine with the real one is 0.9."""


@dataclass(frozen=True)
class Texts:
    """Edits, and questions about the first of them.

    Attributes:
        owners: the edit that each question asks for.
    """

    edits: list[str]
    questions: list[str]
    owners: list[int]

    @classmethod
    def invented(cls, edits: int, asked: int) -> Texts:
        """The same facts whatever the number; two questions about each of the first `asked`."""
        facts = FactSource(SEED, held_out=True).distinct(edits)
        rng = random.Random(SEED)
        ways = [rng.sample([*f.relation.questions, *f.relation.clozes], 2) for f in facts[:asked]]
        questions = [way.format(s=f.subject) for f, pair in zip(facts, ways, strict=False) for way in pair]
        owners = [i for i in range(min(asked, len(facts))) for _ in range(2)]
        return cls([fact.statement for fact in facts], [q[:1].upper() + q[1:] for q in questions], owners)


@dataclass(frozen=True)
class Asked:
    """A question as routing sees it: weights `[T]`, directions `[T, R]`, and the edit that it asks for."""

    weights: torch.Tensor
    directions: torch.Tensor
    owner: int


@dataclass(frozen=True)
class Rows:
    """Route keys `[M, W, R]` of edits, and the edit `[M]` of each row."""

    keys: torch.Tensor
    owners: torch.Tensor

    def first(self, edits: int) -> Rows:
        """Those of the first edits."""
        return Rows(self.keys[self.owners < edits], self.owners[self.owners < edits])


def main(argv: list[str]) -> int:
    """Capture, measure every number of edits, and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder of captured features, 18 KB an edit")
    parser.add_argument("--edits", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--captured", type=int, default=100_000, help="real edits; what is more is simulated")
    parser.add_argument("--asked", type=int, default=1000, help="edits that are asked for, twice each")
    parser.add_argument("--timed", type=int, default=40, help="questions that are timed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the exact comparison; all cores by default")
    parser.add_argument("--model", default="default", help="base: default, a folder, a hub id")
    parser.add_argument("--adapter", help="its edit adapter; the packaged one by default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    rows, asked = captured(args)
    result: dict[str, Any] = provenance(f"python -m benchmarks.routing {' '.join(argv)}".strip())
    result |= {"threads": torch.get_num_threads(), "captured": args.captured, "questions": len(asked), "rows": []}
    for edits in args.edits:
        result["rows"].append(measure(rows, asked, edits, args))
        write(result, args.out)
    sys.stdout.write(markdown(result))
    return 0


@torch.inference_mode()
def captured(args: argparse.Namespace) -> tuple[Rows, list[Asked]]:
    """Route keys of the real edits, and the questions."""
    served = resolve(args.model, args.adapter)
    adapter = EditAdapter.load(served.adapter_dir)
    tokenizer = AutoTokenizer.from_pretrained(served.base_dir)
    texts = Texts.invented(args.captured, args.asked)
    model = AutoModelForCausalLM.from_pretrained(served.base_dir, dtype=torch.bfloat16)
    shape = replace(adapter.shape, layers=(max(adapter.shape.feature_layers),))  # no layer above is computed
    base = FrozenBase(Decoder(model.eval().requires_grad_(False)), adapter.template, shape)
    identity = (base_fingerprint(served.base_dir), shape.feature_layers, adapter.template)
    cache = FeatureCache(args.cache, identity, 1 << 40)
    edits = [tokenizer.encode(text, add_special_tokens=False) for text in texts.edits]
    prompts = [encode(tokenizer, [{"role": "user", "content": text}]) for text in texts.questions]
    features = cache.capture("edits", edits, lambda part: base.edits([edits[i] for i in part]).features, say)
    questions = cache.capture("questions", prompts, lambda part: base.questions([prompts[i] for i in part]), say)
    asked = [question_of(adapter, questions[i], owner) for i, owner in enumerate(texts.owners)]
    return rows_of(adapter, features), asked


def say(stage: str, done: int, total: int) -> None:
    """A line on standard error for every thousand texts."""
    sys.stderr.write(f"{stage} {done:,} of {total:,}\n")


def question_of(adapter: EditAdapter, features: torch.Tensor, owner: int) -> Asked:
    """Features `[T, F]` as captured -> weights and directions."""
    standard, router = adapter.standardise(features), adapter.router
    weights = router.weights(standard, distances_from_end(len(standard)))
    return Asked(weights, router.directions(standard), owner)


def rows_of(adapter: EditAdapter, features: Ragged) -> Rows:
    """The rows that a pool would hold."""
    router: Router = adapter.router
    found, counts = [], []
    for index in range(len(features)):
        keys = router.route_keys(adapter.standardise(features[index])).bfloat16()
        count = -(-len(keys) // ROW_TOKENS)
        found.append(torch.cat([keys, keys[-1:].expand(count * ROW_TOKENS - len(keys), -1)]))
        counts.append(count)
    owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Rows(torch.cat(found).unflatten(0, (-1, ROW_TOKENS)), owners)


def simulated(rows: Rows, edits: int) -> Rows:
    """So many edits: the real ones, and moved copies of them."""
    real = int(rows.owners[-1]) + 1
    if edits <= real:
        return rows.first(edits)
    generator = torch.Generator().manual_seed(SEED)
    last = int((rows.owners < edits - (edits - 1) // real * real).sum())
    total = (edits - 1) // real * len(rows.keys) + last
    keys = rows.keys.new_empty(total, *rows.keys.shape[1:])
    owners = torch.cat([rows.owners + turn * real for turn in range(-(-edits // real))])[:total]
    keys[: len(rows.keys)] = rows.keys
    for start in range(len(rows.keys), total, len(rows.keys)):
        for part in range(start, min(start + len(rows.keys), total), 8192):
            end = min(part + 8192, start + len(rows.keys), total)
            old = rows.keys[part - start : end - start].float()
            moved = F.normalize(old + MOVED * F.normalize(torch.randn(old.shape, generator=generator), dim=-1), dim=-1)
            repeats = (old[:, 1:] == old[:, :-1]).all(-1)
            for place in range(1, ROW_TOKENS):  # padding stays padding
                moved[:, place] = moved[:, place - 1].where(repeats[:, place - 1, None], moved[:, place])
            keys[part:end] = moved
    return Rows(keys, owners)


@torch.inference_mode()
def measure(rows: Rows, asked: Sequence[Asked], edits: int, args: argparse.Namespace) -> dict[str, Any]:
    """Figures of one number of edits."""
    say("edits", edits, max(args.edits))
    table = simulated(rows, edits)
    asked = [question for question in asked if question.owner < edits]
    exact = RouteKeys(table.keys, table.owners, edits)
    index = ArenaIndex()
    late = int((table.owners < edits - min(LATE_EDITS, edits // 10)).sum())
    build_s = seconds(lambda: index.grow(table.keys[:late]))
    indexed = RouteKeys(table.keys, table.owners, edits, index)
    timed = asked[:: max(1, len(asked) // args.timed)][: args.timed]
    late_ms = clocked({"late": indexed}, timed, 1)["late"]
    add_s = seconds(lambda: index.grow(table.keys))
    assert index.rows is not None
    clocks = clocked({"exact": exact, "indexed": indexed}, timed, args.rounds)
    found = {name: [best(q, keys) for q in asked] for name, keys in (("exact", exact), ("indexed", indexed))}
    same = [len({*a} & {*b}) / len(a) for a, b in zip(found["exact"], found["indexed"], strict=True)]
    return {
        "edits": edits,
        "simulated": max(0, edits - args.captured),
        "rows": len(table.keys),
        "question_tokens": summary([len(q.weights) for q in timed]),
        "ms": {name: summary(values) for name, values in clocks.items()},
        "ms_with_late_rows": summary(late_ms),
        "recall": {name: {depth: recall(own, asked, depth) for depth in DEPTHS} for name, own in found.items()},
        "same_candidates": round(sum(same) / len(same), 4),
        "route_key_bytes": table.keys.nbytes,
        "index_bytes": index.rows.index.num_bytes,
        "build_s": round(build_s, 2),
        "late_edits": int(edits - 1 - table.owners[late - 1]),
        "add_s": round(add_s, 3),
    }


def clocked(tables: dict[str, RouteKeys], asked: Sequence[Asked], rounds: int) -> dict[str, list[float]]:
    """Milliseconds a question, the tables in turn for each question."""
    clocks: dict[str, list[float]] = {name: [] for name in tables}
    for turn in range(rounds + 1):
        for question in asked:
            for name, table in tables.items():
                spent = seconds(lambda question=question, table=table: best(question, table))  # type: ignore[misc]
                if turn:  # the first round warms up
                    clocks[name].append(1000 * spent)
    return clocks


def best(question: Asked, table: RouteKeys) -> list[int]:
    """The edits that would be verified."""
    return best_edits(question.weights, question.directions, table, max(DEPTHS))[0].tolist()


def recall(found: Sequence[list[int]], asked: Sequence[Asked], depth: int) -> float:
    """Share of the questions whose edit is among the first `depth`."""
    return round(sum(q.owner in own[:depth] for own, q in zip(found, asked, strict=True)) / len(asked), 4)


def seconds(work: Callable[[], object]) -> float:
    """Of the clock."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def write(result: dict[str, Any], folder: Path) -> None:
    """Both files, anew after every number of edits."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "routing.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "routing.md").write_text(markdown(result))


def markdown(result: dict[str, Any]) -> str:
    """The rows as a table."""
    machine = result["machine"]
    lines = [
        "# Routing among many edits",
        "",
        f"`{result['command']}` on {result['date']}, commit {result['commit']}; {machine['cpu']}, {machine['cores']} "
        f"cores, {result['threads']} threads, load {machine['load_before']} before. {result['questions']:,} questions, "
        f"medians of single questions; edits beyond {result['captured']:,} are simulated.",
        "",
        "| edits | ms exact | ms indexed | recall@4 exact / indexed | recall@8 exact / indexed | same of the best 8 | "
        "route keys | index | build | add |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_line, result["rows"])]) + "\n"


def _line(row: dict[str, Any]) -> str:
    four, eight = (
        " / ".join(f"{100 * row['recall'][name][depth]:.1f} %" for name in ("exact", "indexed")) for depth in (4, 8)
    )
    cells = [
        f"{row['edits']:,}", f"{row['ms']['exact']['median']:.1f}", f"{row['ms']['indexed']['median']:.1f}",
        four, eight, f"{100 * row['same_candidates']:.1f} %", f"{row['route_key_bytes'] / 1e6:,.0f} MB",
        f"{row['index_bytes'] / 1e6:,.0f} MB", f"{row['build_s']:.1f} s",
        f"{row['late_edits']:,} in {row['add_s']:.2f} s",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
