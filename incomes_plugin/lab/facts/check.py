"""Writes a user's facts into every kind of memory and compares them with the same facts as edits: what a memory of
constant size loses.

The key of a question is its tokens' routing directions A q_t, weighted by w_t and added up: what the router makes of
it, as one vector of length 1, whitened by questions about other facts. A memory keeps a code of each fact, or its
answer, under the key of the fact's first question. The last row is the gist pool, which routes token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from incomes_plugin.errors import InvalidValue
from incomes_plugin.gist.spelling import Speller
from incomes_plugin.lab.adapt.features import FrozenBase
from incomes_plugin.lab.data.examples import Example, invented
from incomes_plugin.lab.data.prompts import everyday
from incomes_plugin.lab.facts.capacity.experiment import Table
from incomes_plugin.lab.facts.memories import Whitening, decide, threshold_at, unit_codes
from incomes_plugin.lab.facts.memories.kinds import KINDS, Facts, Memory, MemoryKind
from incomes_plugin.lab.progress import StageProgress
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.edit_encoder import EditEncoder
from incomes_plugin.model.hf import EditableModel
from incomes_plugin.selection.picks import choose
from incomes_plugin.selection.routing import distances_from_end

LEAST, MOST = 10, 20_000
"""Facts that can be checked."""
FALSE_FIRES = 0.01
"""Share of unrelated prompts that the threshold lets through; read off from one half of them, told of the other."""
LATER = 0.2
"""Share of the facts that come later, for retention."""
OTHERS, UNRELATED = 1000, 1000
"""Questions about other facts, for the whitening, and prompts that no fact answers."""
_SEED = 77


@dataclass(frozen=True)
class MemoryScores:
    """How the facts fared in one memory, as shares.

    Attributes:
        recall, rephrased: of first and of second questions, above the threshold.
        fires: unrelated prompts that get an answer.
        old: recall of the old facts when the last fifth came later; None where nothing can be forgotten.
        num_bytes: what a read needs.
    """

    name: str
    recall: float
    rephrased: float | None
    fires: float
    old: float | None
    num_bytes: int


@dataclass(frozen=True)
class QuestionKeys:
    """Keys `[B, R]` of everything that is asked, as the router makes them; `second` holds facts with two questions."""

    first: torch.Tensor
    second: torch.Tensor
    second_of: torch.Tensor
    unrelated: torch.Tensor

    def mapped(self, whitening: Whitening | None) -> QuestionKeys:
        """The keys whitened, or only scaled to length 1."""
        change = whitening or partial(F.normalize, dim=-1)
        return QuestionKeys(change(self.first), change(self.second), self.second_of, change(self.unrelated))


class Asker:
    """A base with its adapter: questions in, features and keys out."""

    def __init__(self, base: Path, adapter: EditAdapter) -> None:
        network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval().requires_grad_(False)
        self._tokenizer = AutoTokenizer.from_pretrained(base)
        self.adapter, self.model = adapter, EditableModel(network, adapter, Speller(self._tokenizer))
        self._frozen = FrozenBase(self.model.decoder, adapter.template, adapter.shape)

    def ids(self, text: str) -> list[int]:
        """Tokens of a text alone."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def edit_ids(self, text: str) -> tuple[int, ...]:
        """Tokens of an edit."""
        return EditEncoder(self.ids)(text)

    def features(self, questions: Sequence[str]) -> list[torch.Tensor]:
        """Features `[T, F]` of every question, each in a chat of its own."""
        chats = [[{"role": "user", "content": question}] for question in questions]
        render = partial(self._tokenizer.apply_chat_template, add_generation_prompt=True, tokenize=False)
        found = self._frozen.questions([self.ids(str(render(chat))) for chat in chats])
        return [self.adapter.standardise(found[place]) for place in range(len(questions))]

    @torch.inference_mode()
    def keys(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """One key `[B, R]` a question."""
        router = self.adapter.router
        weights = [router.weights(part, distances_from_end(len(part))) for part in features]
        keys = [w @ router.directions(part) for w, part in zip(weights, features, strict=True)]
        return torch.stack(keys) if keys else torch.empty(0, router.query.out_features)


def check(asker: Asker, examples: Sequence[Example], value_width: int, progress: StageProgress) -> list[MemoryScores]:
    """One row for each kind of memory, and one for the gists.

    Args:
        value_width: U, a multiple of 8.

    Raises:
        InvalidValue: too few facts, or too many.
    """
    if not LEAST <= len(examples) <= MOST:
        raise InvalidValue(f"{len(examples)} facts: give {LEAST} to {MOST:,}", param="file")
    steps = len(KINDS) + 2
    progress("facts", 0, steps)
    twice = [place for place, example in enumerate(examples) if len(example.questions) > 1]
    first = asker.features([example.questions[0].prompt for example in examples])
    second = asker.features([examples[place].questions[1].prompt for place in twice])
    unrelated = asker.features(everyday(UNRELATED, seed=_SEED))
    keys = (asker.keys(first), asker.keys(second), torch.tensor(twice, dtype=torch.long), asker.keys(unrelated))
    asked = QuestionKeys(*keys)
    others = asker.features([fact.questions[0].prompt for fact in invented(OTHERS, seed=_SEED, held_out=False)])
    plain, whitened = asked.mapped(None), asked.mapped(Whitening.fit(asker.keys(others)))
    answers = [example.questions[0].answer for example in examples]
    outcomes: list[MemoryScores] = []
    for kind in KINDS.values():
        progress("facts", 1 + len(outcomes), steps)
        outcomes.append(_in_memory(kind, answers, whitened if kind.whitened else plain, value_width))
    progress("facts", steps - 1, steps)
    outcomes.append(_in_pool(asker, examples, first, dict(zip(twice, second, strict=True)), unrelated[1::2]))
    progress("facts", steps, steps)
    return outcomes


def table(outcomes: Sequence[MemoryScores]) -> Table:
    """One row a memory."""
    header = ("memory", "recall", "rephrased", "unrelated fire", "old facts after", "KiB")
    rows = [
        [o.name, *map(_percent, (o.recall, o.rephrased, o.fires, o.old)), f"{o.num_bytes / 1024:,.0f}"]
        for o in outcomes
    ]
    return Table(header, rows)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _in_memory(kind: MemoryKind, answers: Sequence[str], asked: QuestionKeys, value_width: int) -> MemoryScores:
    facts = _facts(kind, answers, asked.first, value_width)
    old = round((1 - LATER) * len(answers))
    before, later = facts.part(slice(old)), facts.part(slice(old, None))
    grown = kind.add(kind.write(before), before, later)
    memory = kind.write(facts)
    threshold = threshold_at(decide(memory(asked.unrelated[::2]), facts.codes).scores, FALSE_FIRES)
    said = partial(_best, memory, codes=facts.codes, threshold=threshold)
    second = said(asked.second) == facts.places[asked.second_of] if len(asked.second) else None
    return MemoryScores(
        name=kind.name,
        recall=_share(said(asked.first) == facts.places),
        rephrased=None if second is None else _share(second),
        fires=_share(said(asked.unrelated[1::2]) >= 0),
        old=_share(_best(grown, before.keys, facts.codes, -torch.inf) == before.places),
        num_bytes=memory.num_bytes,
    )


def _facts(kind: MemoryKind, answers: Sequence[str], keys: torch.Tensor, value_width: int) -> Facts:
    """A code for each fact, or one for each answer."""
    if not kind.shares:
        return Facts(keys, unit_codes([str(i) for i in range(len(answers))], value_width), torch.arange(len(answers)))
    names = list(dict.fromkeys(answers))
    return Facts(keys, unit_codes(names, value_width), torch.tensor([names.index(answer) for answer in answers]))


def _best(memory: Memory, keys: torch.Tensor, codes: torch.Tensor, threshold: float) -> torch.Tensor:
    return decide(memory(keys), codes, threshold=threshold).best


def _in_pool(
    asker: Asker,
    examples: Sequence[Example],
    first: Sequence[torch.Tensor],
    second: dict[int, torch.Tensor],
    unrelated: Sequence[torch.Tensor],
) -> MemoryScores:
    """The facts as edits: routed as the engine routes."""
    gists = [asker.model.capture(asker.edit_ids(example.statement)) for example in examples]
    pool, adapter = asker.model.pool(gists), asker.adapter

    def picks(question: torch.Tensor) -> tuple[int, ...]:
        return choose(
            adapter.picking, question, pool.table, lambda row: gists[row].features.unpack(), lambda row: row
        ).edits

    rephrased = [place in picks(question) for place, question in second.items()]
    return MemoryScores(
        name="edits (gist pool)",
        recall=sum(place in picks(question) for place, question in enumerate(first)) / len(first),
        rephrased=sum(rephrased) / len(rephrased) if rephrased else None,
        fires=sum(bool(picks(question)) for question in unrelated) / len(unrelated),
        old=None,
        num_bytes=sum(gist.num_bytes for gist in gists) + pool.table.keys.nbytes,
    )


def _share(hits: torch.Tensor) -> float:
    return float(hits.float().mean())
