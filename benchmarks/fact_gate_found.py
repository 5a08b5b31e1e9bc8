"""Reference path: edits and questions -> how often the right edit is found, how often unrelated prompts read one."""

from __future__ import annotations

import json
import random
import tarfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.everyday import everyday
from benchmarks.stats import ratios, summary
from incomes_plugin.evaluation.metrics import Share
from incomes_plugin.evaluation.run import Workload
from incomes_plugin.evaluation.unrelated import UNRELATED_PROMPTS
from incomes_plugin.facts.gate.file import FactGate
from incomes_plugin.facts.gate.fit import Asked, Reader, filled
from incomes_plugin.selection.routing import Router, Routes, choose

SUCCESS = ("rewrite", "rephrase")
RECALL_AT = 8
THRESHOLDS = (0.97, 0.965, 0.96, 0.95, 0.94, 0.92, 0.9, 0.8)
"""Of the curve: what a stricter one would cost, and save."""

_MORE, _SEED = 1_000, 2028
_PEOPLE_FILE = "webquestions/brmson+dataset-factoid-webquestions/main/test.json"
_TURNS = 15
_AT_ONCE, _ROWS_AT_ONCE = 256, 32
_NEVER = 2.0


@dataclass(frozen=True)
class Unrelated:
    """All tokens of prompts that no edit is about: directions `[B, R]`, prompt `[B]` of each."""

    directions: torch.Tensor
    prompts: torch.Tensor

    @classmethod
    def of(cls, reader: Reader, prompts: Sequence[str]) -> Unrelated:
        """Read them, short ones first."""
        rows = sorted((reader.chat(prompt) for prompt in prompts), key=len)
        parts = (rows[first : first + _ROWS_AT_ONCE] for first in range(0, len(rows), _ROWS_AT_ONCE))
        found = [seen for part in parts for seen in reader.directions(part)]
        return cls(torch.cat(found), torch.arange(len(rows)).repeat_interleave(torch.tensor([*map(len, rows)])))


class Found:
    """What a model's router finds among its own edits, with and without the gate.

    Args:
        largest: the workload with the most edits; the others begin as it does.
        gate_entries: room of the gate's memory, as served.
        data: data folder; without it no questions that people asked.
    """

    def __init__(self, model: Path, largest: Workload, gate_entries: int, data: Path | None) -> None:
        self._reader, self._gate, self._gate_entries = Reader(model), FactGate.load(model), gate_entries
        with torch.inference_mode():
            self._routes = self._reader.routes([edit.text for edit in largest.selection.edits])
            self._silent = {name: Unrelated.of(self._reader, prompts) for name, prompts in _prompts(data).items()}

    @torch.inference_mode()
    def figures(self, work: Workload) -> dict[str, Any]:
        """Recall, false fires, the curve of thresholds, and processor time of picking."""
        router, routes = self._reader.router, _first(self._routes, len(work.selection.edits))
        memory = filled(self._gate, routes, self._gate_entries)
        # What is found, whatever the thresholds say about reading it.
        bare = replace(memory, gate=replace(self._gate, threshold=_NEVER, growth=0.0))
        first, later = self._asked(work)
        threshold = min(router.threshold, memory.threshold(len(routes.ages)))
        sides = {"exact": routes, "gate": replace(routes, preselection=memory)}
        open_sides = {"exact": routes, "gate": replace(routes, preselection=bare)}
        return {
            "entries": len(routes.keys),
            "memory_bytes": memory.rows.nbytes + self._gate.hidden.prototypes.nbytes,
            "key_bytes": routes.keys.to(torch.bfloat16).nbytes,
            "widest_unit": memory.width,
            "not_read_back": memory.unread,
            "unit_full": len(memory.exact) - memory.unread,
            "recall_at_8": {
                name: {"first_token": recall(router, side, first), "later_tokens": recall(router, side, later)}
                for name, side in open_sides.items()
            },
            "threshold": {"exact": router.threshold, "gate": threshold},
            "reading": {
                name: curve(router, side, first, self._silent, sorted({router.threshold, threshold, *THRESHOLDS}))
                for name, side in open_sides.items()
            },
            "search_ms": search_times(router, sides, first.directions, self._silent["unrelated"].directions),
        }

    def _asked(self, work: Workload) -> tuple[Asked, Asked]:
        """First tokens of the answers, and later ones."""
        questions = [
            (q.edit, q.prompt, q.answers[0])
            for q in work.selection.questions
            if q.type in SUCCESS and q.edit is not None
        ]
        asked = [self._reader.asked([question]) for question in questions]
        return tuple(  # type: ignore[return-value]
            Asked(torch.cat([a.directions[part] for a in asked]), torch.cat([a.edits[part] for a in asked]))
            for part in (slice(1), slice(1, None))
        )


def _prompts(data: Path | None) -> dict[str, list[str]]:
    """Prompts that no edit is about, by kind: the fixed ones, everyday ones, and questions that people asked."""
    kinds = {"unrelated": list(UNRELATED_PROMPTS), "everyday": everyday(_MORE, _SEED)}
    if data:
        with tarfile.open(data / "webquestions.tar.xz") as archive:
            file = archive.extractfile(_PEOPLE_FILE)
            assert file is not None
            asked = [record["qText"] for record in json.load(file)]
        kinds["asked_by_people"] = random.Random(_SEED).sample(asked, _MORE)
    return kinds


def _first(routes: Routes, edits: int) -> Routes:
    """Entries of the first `edits` edits."""
    own = routes.owners < edits
    return Routes(routes.keys[own], routes.owners[own], routes.ages[:edits])


def recall(router: Router, routes: Routes, asked: Asked) -> dict[str, float]:
    """Share of tokens that have the right edit among their eight best."""
    wide = replace(router, top_k=RECALL_AT, threshold=_NEVER)
    picks = [choose(wide, part, routes) for part in asked.directions.split(_AT_ONCE)]
    edits, real = torch.cat([p.edits for p in picks]), torch.cat([p.weights for p in picks]) > 0
    return share(((edits == asked.edits[:, None]) & real).any(dim=1))


def curve(
    router: Router, routes: Routes, first: Asked, silent: dict[str, Unrelated], thresholds: Sequence[float]
) -> list[dict[str, Any]]:
    """For every threshold: first tokens that read, with the right edit first too, and prompts and tokens that should
    not read and do."""
    bare = replace(router, threshold=_NEVER)
    picks = [choose(bare, part, routes) for part in first.directions.split(_AT_ONCE)]
    none, right = torch.cat([p.none for p in picks]), torch.cat([p.edits[:, 0] for p in picks]) == first.edits
    others = {
        kind: torch.cat([choose(bare, part, routes).none for part in prompts.directions.split(_AT_ONCE)])
        for kind, prompts in silent.items()
    }
    return [
        {
            "threshold": threshold,
            "first_tokens_read": share(none < threshold),
            "right_first_and_read": share((none < threshold) & right),
            **{kind: fires(weights < threshold, silent[kind].prompts) for kind, weights in others.items()},
        }
        for threshold in thresholds
    ]


def fires(reads: torch.Tensor, prompts: torch.Tensor) -> dict[str, Any]:
    """Shares of prompts and of tokens that read an edit, from tokens `[B]` of prompts `[B]`."""
    any_token = torch.zeros(int(prompts.max()) + 1).scatter_reduce(0, prompts, reads.float(), "amax")
    return {"prompts": share(any_token > 0), "tokens": share(reads)}


def share(hits: torch.Tensor) -> dict[str, float]:
    """A share with its interval."""
    return asdict(Share.of(hits.tolist()))


def search_times(router: Router, sides: dict[str, Routes], asking: torch.Tensor, prompts: torch.Tensor) -> Any:
    """Milliseconds of processor time to pick, in turns: 1 and 8 tokens that ask, 256 of unrelated prompts.

    One thread, keys in bfloat16 as served; processor time, so that a busy machine does not show.
    """
    sides = {name: replace(side, keys=side.keys.to(torch.bfloat16)) for name, side in sides.items()}
    kinds = {"1 that asks": asking[:1], "8 that ask": asking[:8], "256 of unrelated prompts": prompts[-256:]}
    found: dict[str, Any] = {}
    for label, some in kinds.items():
        times: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(-2, _TURNS):
            for name, side in rotated(list(sides.items()), turn):
                start_s = time.process_time()
                choose(router, some, side)
                if turn >= 0:
                    times[name].append(1000 * (time.process_time() - start_s))
        found[label] = {name: summary(values) for name, values in times.items()}
        found[label]["ratio"] = summary(ratios(times["gate"], times["exact"]))
    return found


def rotated(items: Sequence[Any], turn: int) -> list[Any]:
    """Another one begins in every round."""
    return [*items[turn % len(items) :], *items[: turn % len(items)]]
