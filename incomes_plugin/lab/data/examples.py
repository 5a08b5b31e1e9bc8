"""Edits with the questions that they answer: invented facts, published records, and a user's own file.

Published records are optional: they are read from a data folder, and only those whose licence allows shipping what is
trained on them (the model card names them). Without the folder, training uses invented facts alone and says so.
"""

from __future__ import annotations

import json
import logging
import lzma
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.data.facts import FactSource

logger = logging.getLogger("incomes.lab")

SOURCES = ("counterfact", "zsre", "zsre_synth", "pararel_synth", "wiki_cf", "pokemqa", "ripple")
"""Published sets whose licence allows shipping what is trained on them."""

_LONGEST = 240
"""Longest statement or question in characters."""


@dataclass(frozen=True)
class Question:
    """A prompt and the answer that the edit gives it."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Example:
    """One edit.

    Attributes:
        statement: text of the edit.
        questions: which it answers, the most direct one first.
        neighbours: prompts much like those, which it does not answer.
        kind: where it comes from.
        subject: what the edit is about, as its questions write it; empty where that is not known.
        hops: prompts whose answer rests on the edit and on something else.
    """

    statement: str
    questions: tuple[Question, ...]
    neighbours: tuple[str, ...]
    kind: str
    subject: str = ""
    hops: tuple[str, ...] = ()


def read_jsonl_xz(path: Path) -> Iterator[dict]:
    """Records of a `.jsonl.xz` file."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def invented(count: int, *, seed: int, held_out: bool) -> list[Example]:
    """`count` invented facts with distinct subject and relation.

    Args:
        held_out: names from the evaluation part, none of which occurs in training.
    """
    rng = random.Random(seed)
    source = FactSource(seed, held_out=held_out)
    found = []
    for fact in source.distinct(count):
        ways = [*fact.relation.questions, *fact.relation.clozes]
        rng.shuffle(ways)
        prompts = [_upper(way.format(s=fact.subject)) for way in ways[:3]]
        other = source.similar_subject(fact)
        near = rng.choice(fact.relation.questions).format(s=other)
        asides = [rng.choice(source.other_relation(fact.relation).questions).format(s=fact.subject) for _ in range(2)]
        asides.append(source.other_relation(fact.relation).questions[0].format(s=fact.subject))  # as plain as can be
        questions = tuple(Question(prompt, fact.answer) for prompt in prompts)
        neighbours = tuple(map(_upper, (near, *asides)))
        found.append(Example(fact.statement, questions, neighbours, "invented", fact.subject))
    return found


def published(data: Path, source: str, split: str, count: int | None = None, *, seed: int = 0) -> list[Example]:
    """Records of one published set, shuffled; those without a single edit, a question or an answer are left out."""
    path = data / "edits" / f"{source}.{split}.jsonl.xz"
    if not path.is_file():
        logger.warning("no %s: going without it", path.name)
        return []
    found = [example for record in read_jsonl_xz(path) if (example := _example(record, source)) is not None]
    random.Random(seed).shuffle(found)
    return found[:count]


def own(path: Path) -> list[Example]:
    """A user's file: one JSON object a line with `text` and `questions` (objects with `prompt` and `answer`).

    Raises:
        InvalidValue: a line that is no such object; names the line.
    """
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            questions = tuple(Question(str(q["prompt"]), str(q["answer"])) for q in record["questions"])
            found.append(Example(str(record["text"]), questions, tuple(record.get("neighbours", ())), "own"))
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidValue(
                f"{path}, line {number}: {error!r}; expected "
                '{"text": "…", "questions": [{"prompt": "…", "answer": "…"}]}',
                param="data",
            ) from error
    return found


def _example(record: dict, source: str) -> Example | None:
    if len(record["edits"]) != 1:
        return None
    statement = record["edits"][0]["statement"]
    fit = [q for q in record["queries"] if len(q["prompt"]) <= _LONGEST and (q["type"] == "locality" or q["answers"])]
    asked = [q for kind in ("rewrite", "rephrase") for q in fit if q["type"] == kind]
    if not asked or len(statement) > _LONGEST:
        return None
    questions = tuple(Question(q["prompt"], q["answers"][0]) for q in asked)
    subject = record["edits"][0]["subject"] or ""
    neighbours = tuple(q["prompt"] for q in fit if q["type"] == "locality")
    hops = tuple(q["prompt"] for q in fit if q["type"] in ("portability", "multihop") and subject in q["prompt"])
    return Example(statement, questions, neighbours, source, subject, hops)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def statements(examples: Sequence[Example]) -> list[str]:
    """Texts of the edits."""
    return [example.statement for example in examples]
