"""Published question sets from the data folder: questions with their answers. No edit of ours has to do with them.

One question in eight, by hash, is held out: evaluation alone asks it, training never sees it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger("incomes.lab")

_LONGEST = 300
"""Longest question in characters; what is longer is cut."""

_SHORTEST = 9
_HELD_OUT_OF = 8


@dataclass(frozen=True)
class ArchivedQuestion:
    """A question and what counts as a right answer, where that is known."""

    prompt: str
    answers: tuple[str, ...] = ()


def is_held_out_prompt(prompt: str) -> bool:
    """Whether evaluation alone may ask a prompt."""
    return hashlib.sha256(prompt.encode()).digest()[0] % _HELD_OUT_OF == 0


def archives(data: Path, *, held_out: bool) -> dict[str, list[ArchivedQuestion]]:
    """Distinct questions of the training part or of the held-out one, by set; a set that is absent is left out."""
    found = {}
    for name, (ending, read) in _READERS.items():
        path = data / f"{name}.tar.xz"
        if not path.is_file():
            logger.warning("no %s: going without it", path.name)
            continue
        distinct: dict[str, ArchivedQuestion] = {}
        for text in _members(path, ending):
            for one in read(text):
                prompt = one.prompt.strip()[:_LONGEST]
                if len(prompt) >= _SHORTEST and is_held_out_prompt(prompt) is held_out:
                    distinct.setdefault(prompt, ArchivedQuestion(prompt, one.answers))
        found[name] = list(distinct.values())
    return found


def _members(path: Path, ending: str) -> Iterator[str]:
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() and member.name.endswith(ending) else None
            if file is not None:
                yield file.read().decode("utf-8", "replace")


def _web_questions(text: str) -> Iterator[ArchivedQuestion]:
    try:
        records = json.loads(text)
    except ValueError:
        return
    for record in records:
        if isinstance(record, dict) and "qText" in record:
            yield ArchivedQuestion(str(record["qText"]), tuple(map(str, record.get("answers", ()))))


def _squad(text: str) -> Iterator[ArchivedQuestion]:
    yield from (ArchivedQuestion(line) for line in text.splitlines())


def _natural_questions(text: str) -> Iterator[ArchivedQuestion]:
    for record in map(json.loads, text.splitlines()):
        yield ArchivedQuestion(record["question"], tuple(record["answer"]))


def _shop_questions(text: str) -> Iterator[ArchivedQuestion]:
    rows = list(csv.reader(io.StringIO(text), delimiter="\t"))
    yield from (ArchivedQuestion(row[1]) for row in rows[1:] if len(row) > 4)


def _trivia(text: str) -> Iterator[ArchivedQuestion]:
    for block in text.split("\n\n"):
        lines = block.strip().splitlines()
        answers = tuple(line[2:].strip() for line in lines if line.startswith("^ "))
        if lines and lines[0].startswith("#Q "):
            yield ArchivedQuestion(lines[0][3:].strip(), answers)


_READERS: dict[str, tuple[str, Callable[[str], Iterator[ArchivedQuestion]]]] = {
    "webquestions": (".json", _web_questions),
    "squad_nqg": ("tgt-dev.txt", _squad),
    "nq": ("NQ-open.dev.jsonl", _natural_questions),
    "amazon_pqa": ("answer_generation/train.csv", _shop_questions),
    "opentriviaqa": ("", _trivia),
}
"""By archive: how the names of the files that count end, and how one is read."""
