"""Fit a model's fact gate: thousands of its own edits, questions about them, and prompts that no edit is about.

in: an edit-capable model with a router; out: `fact_gate/gate.safetensors` beside it.

    python -m incomes_plugin.facts.gate.fit MODEL [--data DIR] [--units F] [--winners W]
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from incomes_plugin.errors import InvalidValue, PoolFull
from incomes_plugin.facts.gate.file import COMMAND, FILE, FactGate
from incomes_plugin.facts.gate.hidden import fit_hidden
from incomes_plugin.facts.gate.memory import FactMemory, next_size
from incomes_plugin.facts.gate.tally import Tally
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.selection.routing import Router, Routes, choose
from incomes_plugin.training.data import corpus
from incomes_plugin.training.data.facts import Fact, FactSource
from incomes_plugin.training.data.wording import request

EDITS, ASKED, UNRELATED = 10_000, 2_000, 3_000
UNITS, WINNERS = 512, 12

FIRES = 0.01
"""Share of the unrelated prompts that may read something, among all edits."""

_SEED = 125
_AT_ONCE = 32
_NEVER = 2.0
_NOT_READ = -1e9


@dataclass(frozen=True)
class Asked:
    """Tokens that ask, and the edits that they should read: directions `[B, R]`, edits `[B]`."""

    directions: torch.Tensor
    edits: torch.Tensor


@dataclass(frozen=True)
class Unrelated:
    """All tokens of prompts that no edit is about: directions `[B, R]`, prompt `[B]` of each."""

    directions: torch.Tensor
    prompts: torch.Tensor


class Reader:
    """A model with its tokenizer: texts in, what its router sees of them out.

    Raises:
        InvalidValue: the model has no router.
    """

    def __init__(self, model_dir: Path) -> None:
        self.editable = EditableModel.load(model_dir)
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model_dir)
        if self.editable.adapter.router is None:
            raise InvalidValue(f"{model_dir} has no router: only routed selection has a fact gate", param="model")
        self.router: Router = self.editable.adapter.router

    def routes(self, statements: Sequence[str]) -> Routes:
        """Entries of edits with these texts."""
        texts = [self.ids(text) for text in statements]
        gists = [gist for part in _parts(texts) for gist in self.editable.capture_all(part)]
        return ReferencePool.of(gists).routes

    def asked(self, questions: Sequence[tuple[int, str, str]]) -> Asked:
        """Tokens from which the answer's tokens follow, of questions (edit, prompt, answer)."""
        found, edits = [], []
        for part in _parts(questions):
            answers = [self.ids(answer) for _, _, answer in part]
            rows = [self.chat(prompt) + answer for (_, prompt, _), answer in zip(part, answers, strict=True)]
            for (edit, _, _), row, answer, seen in zip(part, rows, answers, self.directions(rows), strict=True):
                found.append(seen[len(row) - len(answer) - 1 : len(row) - 1])
                edits += [edit] * len(answer)
        return Asked(torch.cat(found), torch.tensor(edits))

    def unrelated(self, prompts: Sequence[str]) -> Unrelated:
        """Every token of the prompts."""
        rows = sorted((self.chat(prompt) for prompt in prompts), key=len)
        found = [seen for part in _parts(rows) for seen in self.directions(part)]
        return Unrelated(torch.cat(found), torch.arange(len(rows)).repeat_interleave(torch.tensor([*map(len, rows)])))

    def directions(self, rows: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        """Directions `[T, R]` of the tokens of each row."""
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for line, row in zip(ids, rows, strict=True):
            line[: len(row)] = torch.tensor(row)
        for queries, row in zip(self.editable.queries(ids), rows, strict=True):
            yield self.router.directions(queries[: len(row)])

    def chat(self, prompt: str) -> list[int]:
        """Token ids of a user message that is to be answered."""
        message = [{"role": "user", "content": prompt}]
        return self.ids(str(self.tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)))

    def ids(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]


@torch.inference_mode()
def fit_gate(
    model_dir: Path,
    data: Path | None = None,
    *,
    units: int = UNITS,
    winners: int = WINNERS,
    edits: int = EDITS,
    asked: int = ASKED,
    unrelated: int = UNRELATED,
) -> FactGate:
    """Fit hidden layer, reach and threshold, and write the file.

    Args:
        data: folder with running text, whose sentences are unrelated prompts; without it, invented requests alone.

    Raises:
        InvalidValue: the model has no router, or too many entries do not read back.
    """
    reader = Reader(model_dir)
    facts = FactSource(_SEED, held_out=False).distinct(edits)
    routes = reader.routes([fact.statement for fact in facts])
    asking = reader.asked(list(questions(facts[:asked])))
    answering = best_entries(routes, asking)
    hidden = fit_hidden(routes.keys, asking.directions, routes.keys[answering], units=units, winners=winners)
    gate = FactGate(hidden, _NOT_READ, _NEVER)
    gate = replace(gate, reach=reach(gate, reader.router, asking))
    silent = reader.unrelated(unrelated_prompts(unrelated, data, _SEED))
    gate = replace(gate, threshold=threshold(gate, reader.router, routes, silent))
    gate.save(model_dir)
    return gate


def questions(facts: Sequence[Fact]) -> Iterator[tuple[int, str, str]]:
    """A question about each fact, in one of its wordings."""
    rng = random.Random(_SEED)
    for place, fact in enumerate(facts):
        wordings = [*fact.relation.questions, *fact.relation.clozes]
        yield place, rng.choice(wordings).format(s=fact.subject), fact.answer


def unrelated_prompts(count: int, data: Path | None, seed: int) -> list[str]:
    """Invented requests, and as many sentences of running text where there is some."""
    rng = random.Random(seed)
    texts = corpus.texts(data, limit=count // 2) if data else []
    sentences = [part for text in texts for part in re.split(r"(?<=[.!?])\s+", text) if 12 < len(part) < 140]
    chosen = rng.sample(sentences, min(len(sentences), count // 2))
    return chosen + [request(rng) for _ in range(count - len(chosen))]


def best_entries(routes: Routes, asked: Asked) -> torch.Tensor:
    """Place `[B]` of the entry that each token likes best in the edit it should read."""
    places = []
    for direction, edit in zip(asked.directions, asked.edits, strict=True):
        own = (routes.owners == edit).nonzero()[:, 0]
        places.append(own[(routes.keys[own] @ direction).argmax()])
    return torch.stack(places)


def reach(gate: FactGate, router: Router, asked: Asked) -> float:
    """The lead of the most excited unit over the zero-gist that every asking token has: all of them go on reading."""
    excited, _ = gate.hidden.read(asked.directions)
    return float((excited[:, 0] - router.zero_logits(asked.directions, 0)).min())


def threshold(gate: FactGate, router: Router, routes: Routes, silent: Unrelated) -> float:
    """The zero-gist's weight below which `FIRES` of the unrelated prompts have a token; the router's own at most."""
    memory = filled(gate, routes)
    bare = replace(router, threshold=_NEVER)
    none = torch.cat(
        [choose(bare, part, replace(routes, preselection=memory)).none for part in silent.directions.split(1024)]
    )
    prompts = int(silent.prompts.max()) + 1
    lowest = torch.full((prompts,), _NEVER).scatter_reduce(0, silent.prompts, none, "amin")
    return min(router.threshold, float(lowest.sort().values[int(FIRES * prompts)]))


def filled(gate: FactGate, routes: Routes) -> FactMemory:
    """The memory of all entries at once.

    Raises:
        InvalidValue: too many of them do not read back.
    """
    empty = FactMemory.empty(gate, next_size(len(routes.keys)), Tally())
    try:
        return empty.changed(range(len(routes.keys)), routes.keys, [], len(routes.keys))
    except PoolFull as error:
        raise InvalidValue(f"this gate is no good: {error.message}; raise --winners", param="winners") from error


def _parts(items: Sequence) -> Iterator[Sequence]:
    yield from (items[first : first + _AT_ONCE] for first in range(0, len(items), _AT_ONCE))


def main(argv: Sequence[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("model", type=Path, help=f"folder of an edit-capable model; {FILE} is written into it")
    parser.add_argument("--data", type=Path, help="folder with text/")
    parser.add_argument("--units", type=int, default=UNITS, help="of the hidden layer")
    parser.add_argument("--winners", type=int, default=WINNERS, help="units that a token reads")
    parser.add_argument("--edits", type=int, default=EDITS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    fit_gate(args.model, args.data, units=args.units, winners=args.winners, edits=args.edits)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
