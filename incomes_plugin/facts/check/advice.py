"""Where to invest for a dictionary of this size: attention or MLP parameters, or a memory of constant size beside.

From the paper's task (S subjects, R relations, D answers a relation, N facts), with its fitted constants:

    width           d >= max(R, D)                          so that relations and answers can be told apart
    attention       H d_h d >= 20 (S + R)                   to find subject and relation at all (1,280 for S + R = 64)
    facts           m d + H d_h d / 2 >= 2.25 N             either holds them (2,300 for N = 1,024)
    parameters      4 H d_h d + 2 m d                       an MLP parameter holds four times what one of attention does
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from incomes_plugin.facts.check.dictionary import Entry
from incomes_plugin.facts.check.outcome import Outcome
from incomes_plugin.facts.plan.memory import MeasuredKeys
from incomes_plugin.facts.theory import load

ATTENTION_PER_TOKEN = 1280 / 64
HELD_PER_FACT = 2300 / 1024


@dataclass(frozen=True)
class Shape:
    """A dictionary in the paper's terms.

    Attributes:
        facts, subjects, relations: N, S, R.
        choices: D, the most answers that one relation has.
        most_shared: facts of the answer that most facts share.
    """

    facts: int
    subjects: int
    relations: int
    choices: int
    most_shared: int


@dataclass(frozen=True)
class Advice:
    """Sizes that hold the dictionary.

    Attributes:
        width: d.
        value_parameters: H d_h d, with an MLP.
        hidden: m.
        parameters: all of attention and MLP.
        attention_only_parameters: what it takes without an MLP.
        invest: "attention" or "MLP", where the next parameter holds more facts.
        memory_recall: what a linear memory by least squares recalls of them, foreseen from their own keys.
        memory_width: U with which it recalls 99 %; None = these questions look too much alike.
    """

    shape: Shape
    width: int
    value_parameters: int
    hidden: int
    parameters: int
    attention_only_parameters: int
    invest: str
    memory_recall: float
    memory_width: int | None


def shape_of(entries: Sequence[Entry]) -> Shape:
    """Count subjects, relations and answers."""
    answers: dict[str, set[str]] = {}
    for entry in entries:
        answers.setdefault(entry.relation, set()).add(entry.answer)
    shared = Counter(entry.answer for entry in entries)
    return Shape(
        len(entries), len({entry.subject for entry in entries}), len(answers), max(map(len, answers.values())),
        max(shared.values()),
    )  # fmt: skip


def advise(shape: Shape, keys: MeasuredKeys, value_width: int) -> Advice:
    """Sizes from the constants of the module's table; those of a memory from the keys of the dictionary's questions.

    Args:
        value_width: U of the memory whose recall is foreseen.
    """
    width = 8 * math.ceil(max(shape.relations, shape.choices, 16) / 8)
    least, held = ATTENTION_PER_TOKEN * (shape.subjects + shape.relations), HELD_PER_FACT * shape.facts
    in_mlp = max(0.0, held - least / 2)
    hidden = max(shape.most_shared if in_mlp else 0, math.ceil(in_mlp / width))
    return Advice(
        shape=shape,
        width=width,
        value_parameters=math.ceil(least),
        hidden=hidden,
        parameters=math.ceil(4 * least) + 2 * hidden * width,
        attention_only_parameters=math.ceil(4 * max(least, 2 * held)),
        invest="MLP" if hidden else "attention",
        memory_recall=keys.recall(shape.facts, value_width),
        memory_width=keys.width_for(shape.facts),
    )


def best_of(outcomes: Sequence[Outcome]) -> Outcome:
    """The memory that recalls most and answers least of what it has no fact for: the largest difference of the two."""
    return max(outcomes, key=lambda outcome: outcome.recall - (outcome.foreign or 0.0))


def best_line(best: Outcome) -> str:
    """For people."""
    return (
        f"of these {best.name} does best at both: {best.recall:.1%} of the stored questions right, "
        f"{best.foreign or 0.0:.1%} of the foreign ones answered, {best.num_bytes / 1024:,.0f} KiB"
    )


def advice_lines(advice: Advice, key_width: int, value_width: int) -> list[str]:
    """For people; `key_width` and `value_width` are those that were checked."""
    shape, wider = advice.shape, advice.memory_width
    remedy = "no width does: these questions look too much alike" if wider is None else f"99 % needs width {wider:,}"
    return [
        f"{shape.facts:,} facts: {shape.subjects:,} subjects, {shape.relations:,} relations, at most {shape.choices:,} "
        f"answers a relation, at most {shape.most_shared:,} facts an answer",
        f"in a model of its own invest in {advice.invest}: width {advice.width}, {advice.value_parameters:,} value "
        f"parameters, {advice.hidden:,} hidden units: {advice.parameters:,} parameters; without an MLP "
        f"{advice.attention_only_parameters:,}",
        f"linear memory of {key_width} x {value_width}: load {load(shape.facts, key_width, value_width):.3f}, foreseen "
        f"from these keys {advice.memory_recall:.1%}, without abstaining; {remedy}",
    ]  # fmt: skip
