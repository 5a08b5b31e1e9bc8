"""Fit a model's fact gate: thousands of its own edits, and questions about them.

in: an edit-capable model with a router; out: `fact_gate/gate.safetensors` beside it.

    python -m incomes_plugin.facts.gate.fit MODEL [--units F] [--winners W]

The threshold is read off from questions, not from prompts that should read nothing: those that a router was fitted to
say too little of any others (docs/experiments.md). So the gate is as strict as the success it may cost allows.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from incomes_plugin.errors import InvalidValue, PoolFull
from incomes_plugin.facts.gate.file import COMMAND, FILE, FactGate, log_odds
from incomes_plugin.facts.gate.hidden import fit_hidden
from incomes_plugin.facts.gate.load import next_size
from incomes_plugin.facts.gate.memory import FactMemory
from incomes_plugin.facts.gate.tally import Tally
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.selection.routing import Router, Routes, choose
from incomes_plugin.training.data.facts import Fact, FactSource

EDITS, ASKED = 10_000, 2_000
"""Facts that are captured and asked about once; questions of which all tokens are looked at."""

UNITS, WINNERS = 512, 16

LOST = 0.008
"""Share of the rightly routed questions that may read nothing because of the gate: success is to stay within a point of
what it is without one."""

_SMALL = 10
"""The threshold is read off in pools of one part in so many of the facts, its growth in a pool of all."""

_SEED = 125
_AT_ONCE, _CHOSEN_AT_ONCE = 32, 256
_NEVER = 2.0
_NOT_READ = -1e9


@dataclass(frozen=True)
class Asked:
    """Tokens that ask, and the edits that they should read: directions `[B, R]`, edits `[B]`."""

    directions: torch.Tensor
    edits: torch.Tensor


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

    def beginnings(self, questions: Sequence[tuple[int, str, str]]) -> torch.Tensor:
        """Directions `[N, R]` of the token from which the answer to each question follows."""
        rows = [self.chat(prompt) for _, prompt, _ in questions]
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        found = torch.cat([seen[-1:] for part in _parts(order) for seen in self.directions([rows[i] for i in part])])
        return torch.empty_like(found).index_copy_(0, torch.tensor(order), found)

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
    model_dir: Path, *, units: int = UNITS, winners: int = WINNERS, edits: int = EDITS, asked: int = ASKED
) -> FactGate:
    """Fit hidden layer, reach and threshold, and write the file.

    Raises:
        InvalidValue: the model has no router, or too many entries do not read back.
    """
    reader = Reader(model_dir)
    facts = FactSource(_SEED, held_out=False).distinct(edits)
    routes = reader.routes([fact.statement for fact in facts])
    wordings = list(questions(facts))
    asking = reader.asked(wordings[:asked])
    answering = best_entries(routes, asking)
    hidden = fit_hidden(routes.keys, asking.directions, routes.keys[answering], units=units, winners=winners)
    gate = FactGate(hidden, _NOT_READ, _NEVER)
    gate = replace(gate, reach=reach(gate, reader.router, asking))
    filled(gate, routes)
    gate = with_threshold(gate, reader.router, routes, reader.beginnings(wordings))
    gate.save(model_dir)
    return gate


def questions(facts: Sequence[Fact]) -> Iterator[tuple[int, str, str]]:
    """A question about each fact, in one of its wordings."""
    rng = random.Random(_SEED)
    for place, fact in enumerate(facts):
        wordings = [*fact.relation.questions, *fact.relation.clozes]
        yield place, rng.choice(wordings).format(s=fact.subject), fact.answer


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


def with_threshold(gate: FactGate, router: Router, routes: Routes, first: torch.Tensor) -> FactGate:
    """The gate with its threshold and growth, from pools of a tenth of the facts and from one of all.

    Args:
        first: directions `[N, R]` of the tokens from which the answer about each fact follows.
    """
    edits = len(first)
    crowd = max(1, edits // _SMALL)
    tenths = [range(start, start + crowd) for start in range(0, crowd * _SMALL, crowd)]
    small = strictest(router, [(part_of(routes, part), first[part.start : part.stop]) for part in tenths])
    large = strictest(router, [(routes, first)])
    growth = (log_odds(large) - log_odds(small)) / math.log(edits / crowd)
    return replace(gate, threshold=small, growth=growth, crowd=crowd)


def strictest(router: Router, pools: Sequence[tuple[Routes, torch.Tensor]]) -> float:
    """The zero-gist's weight that `LOST` of the rightly routed questions which read reach or exceed.

    Args:
        pools: each with the directions `[N, R]` of its questions; the i-th asks for edit i.
    """
    bare, weights = replace(router, threshold=_NEVER), []
    for routes, directions in pools:
        picks = [choose(bare, part, routes) for part in directions.split(_CHOSEN_AT_ONCE)]
        right = torch.cat([pick.edits[:, 0] for pick in picks]) == torch.arange(len(directions))
        weights.append(torch.cat([pick.none for pick in picks])[right])
    found = torch.cat(weights)
    read = found[found < router.threshold].sort(descending=True).values
    return float(read[int(LOST * len(read))]) if len(read) else router.threshold


def part_of(routes: Routes, edits: range) -> Routes:
    """Entries of neighbouring edits, as a pool of their own."""
    own = (routes.owners >= edits.start) & (routes.owners < edits.stop)
    return Routes(routes.keys[own], routes.owners[own] - edits.start, routes.ages[edits.start : edits.stop])


def filled(gate: FactGate, routes: Routes, capacity: int | None = None) -> FactMemory:
    """The memory of all entries at once.

    Args:
        capacity: entries that it holds; None = the next size.

    Raises:
        InvalidValue: too many of them do not read back.
    """
    empty = FactMemory.empty(gate, capacity or next_size(len(routes.keys)), Tally())
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
    parser.add_argument("--units", type=int, default=UNITS, help="of the hidden layer")
    parser.add_argument("--winners", type=int, default=WINNERS, help="units that a token reads")
    parser.add_argument("--edits", type=int, default=EDITS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    fit_gate(args.model, units=args.units, winners=args.winners, edits=args.edits)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
