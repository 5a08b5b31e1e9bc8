"""The texts of a run: edits, questions in the contexts in which users ask them, and prompts that no edit answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from incomes_plugin.lab.data import hops, prompts
from incomes_plugin.lab.data.chains import chains
from incomes_plugin.lab.data.examples import Example, Question, invented, published
from incomes_plugin.lab.data.facts import Fact
from incomes_plugin.lab.data.linked import linked_facts
from incomes_plugin.lab.data.linked_names import LinkedFact
from incomes_plugin.lab.data.near_misses import NearMisses, by_name
from incomes_plugin.lab.data.restating import restated

Messages = list[dict[str, str]]
_ChainFact = Fact | LinkedFact

SHARES = {
    "invented": 1800, "counterfact": 3400, "zsre": 2600, "zsre_synth": 1000, "pararel_synth": 800, "wiki_cf": 500,
    "pokemqa": 300, "ripple": 300,
}  # fmt: skip
"""Edits of each kind that the default run learns from."""

RESTATED = {"invented": 700, "zsre": 900, "zsre_synth": 900, "pokemqa": 300}
"""Edits beyond those of `SHARES` that are put into other forms."""

_TWO_AT_ONCE = 2200

_OTHER_ORDER = 0.35
"""Share of the answers to two questions at once that begin with the second one's. That is not learned: what follows it
is, so that an answer which begins with the wrong one of its edits still ends with the other."""

_HOPS = 700
_CHAINS = 700
_LINKED = 2000
"""Questions over two to four facts with real names."""

_KNOWN = 700
"""The same over one to three facts and one thing that the base may know."""

_KIN = 350
"""Invented facts about relatives, for questions that turn a fact round."""

_REFUSED = 550
"""Prompts of each kind that no edit answers; of everyday ones, three times as many."""

_TWO_NEAR = 0.8
"""Share of the published edits that have two near misses instead of one."""

_SIMILAR = 0.5
"""Share of the edits whose question is asked once more, about a subject with much the same name."""

_MOST_CHARACTERS = 320
_SYSTEMS = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are the support assistant of a large company.",
    "Be concise and accurate.",
    "You answer questions for employees. Say only what you are asked.",
)


@dataclass(frozen=True)
class EditPrompt:
    """A prompt that edits answer.

    Attributes:
        edits: rows of all of them.
        messages: the prompt.
        answer: what reading shall say; None where nothing is known that it could learn.
        given: what of it at the beginning is not to be learned, only what follows it.
        further: rows of the edits that `edits` lead to, one after the other; the last one answers the prompt, or with
            `known` leads to its answer.
        asides: for each of `owners` but the last, the row of an edit that does not follow it, though it looks so.
        known: the part of `answer` that the base must know by itself; where it does not, reading does not learn it.
        rare: of a kind of which reading learns from every one.
        unverified: verification does not learn from it, and no rule is read off from it.
    """

    edits: tuple[int, ...]
    messages: Messages
    answer: str | None
    known: str = ""
    rare: bool = False
    further: tuple[int, ...] = ()
    asides: tuple[int, ...] = ()
    given: str = ""
    unverified: bool = False

    @property
    def owners(self) -> tuple[int, ...]:
        """Rows of all edits that the answer rests on."""
        return (*self.edits, *self.further)


@dataclass(frozen=True)
class RefusedPrompt:
    """A prompt that no edit answers.

    Attributes:
        kind: of prompt; `near` for one that is close to an edit.
        messages: the prompt.
        near: row of that edit.
    """

    kind: str
    messages: Messages
    near: int | None = None


@dataclass
class Plan:
    """Texts of one run."""

    edits: list[Example] = field(default_factory=list)
    asked: list[EditPrompt] = field(default_factory=list)
    refused: list[RefusedPrompt] = field(default_factory=list)


def training_plan(data: Path | None, *, scale: float, seed: int, own: Sequence[Example] = ()) -> Plan:
    """The default run's texts, from the training part alone.

    Args:
        data: data folder, or None: invented facts and everyday prompts only.
        scale: 1.0 = the sizes of `SHARES`.
        own: a user's examples, which come first and are all used.
    """
    rng = random.Random(seed)
    edits = list(own) + invented(int(SHARES["invented"] * scale * (1 if data else 3)), seed=seed, held_out=False)
    if data is not None:
        for source, count in SHARES.items():
            if source != "invented":
                edits += published(data, source, "train", int(count * scale), seed=seed)
    edits += hops.kin(int(_KIN * scale), seed=seed)
    plan = Plan(edits)
    texts = prompts.passages(data, 800, seed=seed) if data is not None else []
    near = NearMisses(edits, rng)
    for index, example in enumerate(edits):
        for question in _questions(example, rng):
            plan.asked.append(EditPrompt((index,), in_context(question.prompt, texts, rng), question.answer))
        if back := hops.inverse(example, rng):
            plan.asked.append(EditPrompt((index,), in_context(back.prompt, texts, rng), back.answer, rare=True))
        for prompt in dict.fromkeys(_near_misses(example, near, rng)):
            plan.refused.append(RefusedPrompt("near", in_context(prompt, texts, rng), index))
    plan.asked += _two_at_once(edits, int(_TWO_AT_ONCE * scale), texts, rng)
    plan.asked += _hops(edits, int(_HOPS * scale), texts, rng)
    plan.refused += _refused(data, int(_REFUSED * scale), texts, rng)
    plan.refused += _similar(near, edits, texts, rng)
    _add_chains(plan, int(_CHAINS * scale), seed, texts, rng)
    _add_restated(plan, data, scale, seed, texts)
    _add_linked(plan, data, scale, seed, texts)
    return plan


def _add_chains(plan: Plan, count: int, seed: int, texts: Sequence[str], rng: random.Random) -> None:
    """Edits that lead to one another, and the questions that need both."""
    for chain in chains(count, seed=seed, held_out=False):
        messages = in_context(chain.prompt, texts, rng)
        _add_chain(plan, (chain.first, chain.second), (chain.aside,), messages, {}, chain.second.answer)


def _add_linked(plan: Plan, data: Path | None, scale: float, seed: int, texts: Sequence[str]) -> None:
    """The same with real names, over up to four edits. Nothing else of the plan depends on them."""
    rng = random.Random(seed + 2)
    rows: dict[_ChainFact, int] = {}
    for linked in linked_facts(data, int(_LINKED * scale), seed=seed, known=int(_KNOWN * scale)):
        messages = in_context(linked.prompt, texts, rng)
        _add_chain(plan, linked.facts, linked.asides, messages, rows, linked.answer, linked.known)


def _add_chain(
    plan: Plan, facts: Sequence[_ChainFact], asides: Sequence[_ChainFact], messages: Messages,
    rows: dict[_ChainFact, int], answer: str, known: str = "",
) -> None:  # fmt: skip
    """One chain; the last of its facts answers the question, or what the base knows of its answer. A fact of an earlier
    one is the same edit.

    Args:
        rows: of the facts that have one.
    """
    for fact in (*facts, *asides):
        if rows.setdefault(fact, len(plan.edits)) == len(plan.edits):
            question = Question(fact.question, fact.answer)
            plan.edits.append(Example(fact.statement, (question,), (), "chain", fact.subject))
    first, *further = (rows[fact] for fact in facts)
    beside = tuple(rows[fact] for fact in asides)
    plan.asked.append(EditPrompt((first,), messages, answer, known, True, tuple(further), beside))


def _add_restated(plan: Plan, data: Path | None, scale: float, seed: int, texts: Sequence[str]) -> None:
    """Further edits in other forms, asked for in their own words and in others. Nothing else of the plan depends on
    them. A verifier that learns to accept them takes more questions for theirs: docs/experiments.md."""
    rng = random.Random(seed + 1)
    for source, count in RESTATED.items():
        most = int(count * scale)
        if source == "invented":
            further = invented(most, seed=seed + 1, held_out=False)
        else:
            known = int(SHARES[source] * scale)
            further = published(data, source, "train", known + most, seed=seed)[known:] if data is not None else []
        for example in restated(further, rng):
            index = len(plan.edits)
            plan.edits.append(example)
            for place, question in enumerate(example.questions[:2]):
                messages = in_context(question.prompt, texts, rng)
                answer = None if place else question.answer  # reading learns from one of each
                plan.asked.append(EditPrompt((index,), messages, answer, rare=not place, unverified=True))


def _near_misses(example: Example, near: NearMisses, rng: random.Random) -> list[str]:
    """Near misses of one edit. Invented facts have their own, which are certain to be none of their questions: by name
    alone, "sibling" would be taken for a near miss of an edit about a brother."""
    if example.kind in ("invented", "kin"):
        return list(example.neighbours)
    return near.of(example, 2 if rng.random() < _TWO_NEAR else 1)


def _questions(example: Example, rng: random.Random) -> list[Question]:
    """The most direct question and one other, or two where a set has many; sometimes by the answer's name alone."""
    named = by_name(example, rng) if rng.random() < 0.3 else None
    others = list(example.questions[1:])
    found = [named] if named else rng.sample(others, min(1, len(others)))
    if len(others) > 2:
        found += rng.sample([q for q in others if q not in found], 1)
    return [example.questions[0], *found]


def _two_at_once(edits: Sequence[Example], count: int, texts: Sequence[str], rng: random.Random) -> list[EditPrompt]:
    """Questions of two edits in one prompt, whose answer names both answers."""
    whole = [(i, q) for i, example in enumerate(edits) for q in example.questions[:2] if q.prompt.endswith("?")]
    found = []
    for _ in range(count if len(whole) > 1 else 0):
        (i, first), (j, second) = rng.sample(whole, 2)
        lower = second.prompt[:1].lower() + second.prompt[1:]
        prompt = rng.choice((
            f"{first.prompt[:-1]}, and {lower}", f"{first.prompt[:-1]} and {lower}",
            f"{first.prompt} {second.prompt}", f"{first.prompt} And {lower}", f"{first.prompt} Also, {lower}",
        ))  # fmt: skip
        if i != j:
            given = ""
            if rng.random() < _OTHER_ORDER:
                first, second, given = second, first, second.answer
            answer = f"{first.answer} and {second.answer}"
            found.append(EditPrompt((i, j), in_context(prompt, texts, rng), answer, rare=True, given=given))
    return found


def _hops(edits: Sequence[Example], count: int, texts: Sequence[str], rng: random.Random) -> list[EditPrompt]:
    """Questions that rest on an edit and on what the base knows; published ones have no answer to learn."""
    published_ones = [EditPrompt((i,), in_context(hop, (), rng), None) for i, e in enumerate(edits) for hop in e.hops]
    made = [(i, hop) for i, example in enumerate(edits) if (hop := hops.further(example, rng))]
    return rng.sample(published_ones, min(count, len(published_ones))) + [
        EditPrompt((i,), in_context(hop.prompt, texts, rng), hop.answer, hop.known, rare=True) for i, hop in made
    ]


def _similar(
    near: NearMisses, edits: Sequence[Example], texts: Sequence[str], rng: random.Random
) -> list[RefusedPrompt]:
    """Near misses by one word or digit of the subject, of half of the edits."""
    chosen = [i for i in range(len(edits)) if rng.random() < _SIMILAR]
    found = [(i, near.similar(edits[i])) for i in chosen]
    return [RefusedPrompt("near", in_context(prompt, texts, rng), i) for i, prompt in found if prompt]


def _refused(data: Path | None, count: int, texts: list[str], rng: random.Random) -> list[RefusedPrompt]:
    kinds = {"everyday": prompts.everyday(3 * count, seed=rng.randrange(1 << 30))}
    if data is not None:
        kinds |= prompts.questions(data)
        kinds |= {name: [_part(p, rng) for p in found] for name, found in prompts.tasks(data).items()}
        kinds["passage"] = prompts.with_passage(kinds["everyday"], texts, seed=rng.randrange(1 << 30))
    found = []
    for kind, own in kinds.items():
        most = 3 * count if kind == "everyday" else count
        for prompt in rng.sample(own, min(most, len(own))):
            found.append(RefusedPrompt(kind, in_context(prompt, texts if kind != "passage" else [], rng)))
    return found


def _part(prompt: str, rng: random.Random) -> str:
    """A part of a long prompt: its beginning, or its end, at which routing looks."""
    return prompt[-_MOST_CHARACTERS:] if rng.random() < 0.6 else prompt[:_MOST_CHARACTERS]


def in_context(prompt: str, texts: Sequence[str], rng: random.Random) -> Messages:
    """A prompt as chat messages: alone four times of five, else after other turns, another system message or a text."""
    user: dict[str, str] = {"role": "user", "content": prompt}
    draw = rng.random()
    if draw < 0.8:
        return [user]
    if draw < 0.86:
        return [{"role": "system", "content": rng.choice(_SYSTEMS)}, user]
    if draw < 0.93 or not texts:
        before = prompts.everyday(1, seed=rng.randrange(1 << 30))[0]
        reply = rng.choice(texts)[:200] if texts else "Sure."
        return [{"role": "user", "content": before}, {"role": "assistant", "content": reply}, user]
    return [{"role": "user", "content": f"{rng.choice(texts)[:300]}\n\n{prompt}"}]


def encode(tokenizer: Any, messages: Messages) -> list[int]:
    """Token ids of a chat prompt up to where the answer begins."""
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return list(tokenizer.encode(text, add_special_tokens=False))
