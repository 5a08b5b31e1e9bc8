"""What a run looks at: edits, questions in the contexts in which users ask them, and prompts that no edit answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from incomes_plugin.lab.data import prompts
from incomes_plugin.lab.data.examples import Example, invented, published

SHARES = {
    "invented": 2200, "counterfact": 2200, "zsre": 2200, "zsre_synth": 1000, "pararel_synth": 1000, "wiki_cf": 400,
    "pokemqa": 400,
}  # fmt: skip
"""Edits of each kind that the default run learns from."""

_SYSTEMS = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are the support assistant of a large company.",
    "Be concise and accurate.",
    "You answer questions for employees. Say only what you are asked.",
)


@dataclass
class Plan:
    """Texts of one run.

    Attributes:
        edits: the edits.
        asked: (row in `edits`, prompt, answer): prompts as chat messages.
        refused: prompts that no edit answers, with their kind; a neighbour of edit i has the kind `near`.
    """

    edits: list[Example] = field(default_factory=list)
    asked: list[tuple[int, list[dict[str, str]], str]] = field(default_factory=list)
    refused: list[tuple[str, list[dict[str, str]]]] = field(default_factory=list)


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
    plan = Plan(edits)
    texts = prompts.passages(data, 800, seed=seed) if data is not None else []
    for index, example in enumerate(edits):
        others = list(example.questions[1:])
        rng.shuffle(others)
        for question in [example.questions[0], *others[:1]]:
            plan.asked.append((index, in_context(question.prompt, texts, rng), question.answer))
        for neighbour in rng.sample(example.neighbours, min(1, len(example.neighbours))):
            plan.refused.append(("near", in_context(neighbour, texts, rng)))
    plan.refused += _refused(data, int(600 * scale), texts, rng)
    return plan


def _refused(
    data: Path | None, count: int, texts: list[str], rng: random.Random
) -> list[tuple[str, list[dict[str, str]]]]:
    kinds = {"everyday": prompts.everyday(3 * count, seed=rng.randrange(1 << 30))}
    if data is not None:
        kinds |= {name: found for name, found in prompts.questions(data).items()}
        kinds |= {name: [p[:300] for p in found] for name, found in prompts.tasks(data).items() if name != "math"}
        kinds["passage"] = prompts.with_passage(kinds["everyday"], texts, seed=rng.randrange(1 << 30))
    found = []
    for kind, own in kinds.items():
        most = 3 * count if kind == "everyday" else count
        for prompt in rng.sample(own, min(most, len(own))):
            found.append((kind, in_context(prompt, texts if kind != "passage" else [], rng)))
    return found


def in_context(prompt: str, texts: Sequence[str], rng: random.Random) -> list[dict[str, str]]:
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


def encode(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Token ids of a chat prompt up to where the answer begins."""
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return list(tokenizer.encode(text, add_special_tokens=False))
