"""Running text and published edit records from a data folder, as plain strings. Read by the tokenizer and by training.

Only sources whose licence allows shipping the trained model are listed (the model card names them). The folder is
optional: without it training uses invented facts alone and says so.
"""

from __future__ import annotations

import json
import logging
import lzma
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger("incomes.training")

TEXT_SOURCES = ("wikipedia", "factbook", "docs", "openstax", "books")
EDIT_SOURCES = ("counterfact", "zsre", "zsre_synth", "pararel_synth", "wiki_cf", "ripple", "pokemqa")


@dataclass(frozen=True)
class EditRecord:
    """One published edit.

    Attributes:
        statement: text of the edit.
        prompts: ask for it.
        answer: the new answer.
        others: prompts that it must not answer: neighbours, other relations, unrelated questions.
        relation: id shared by edits of one relation, or "".
    """

    statement: str
    prompts: tuple[str, ...]
    answer: str
    others: tuple[str, ...]
    relation: str


def read_jsonl_xz(path: Path) -> Iterator[dict]:
    """Records of a `.jsonl.xz` file."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def texts(data: Path | None, *, limit: int) -> list[str]:
    """Up to `limit` paragraphs of 60 to 400 characters from each text source."""
    found: list[str] = []
    for source in TEXT_SOURCES:
        path = data / "text" / f"{source}.jsonl.xz" if data else None
        if path is None or not path.is_file():
            logger.warning("no text source %s: training goes without it", source)
            continue
        paragraphs: list[str] = []
        for record in read_jsonl_xz(path):
            paragraphs += [p.strip()[:400] for p in record["text"].split("\n") if len(p.strip()) >= 60]
            if len(paragraphs) >= 4 * limit:
                break
        random.Random(0).shuffle(paragraphs)
        found += paragraphs[:limit]
    return found


def edits(data: Path | None, *, limit: int) -> list[EditRecord]:
    """Up to `limit` train-split records of each edit source whose statement contains the new answer."""
    found: list[EditRecord] = []
    for source in EDIT_SOURCES:
        path = data / "edits" / f"{source}.train.jsonl.xz" if data else None
        if path is None or not path.is_file():
            logger.warning("no edit source %s: training goes without it", source)
            continue
        records = [r for r in map(_to_record, read_jsonl_xz(path)) if r is not None]
        random.Random(0).shuffle(records)
        found += records[:limit]
    return found


def _to_record(record: dict) -> EditRecord | None:
    statement, answer = record["edit"], record.get("target_new")
    if len(record["edits"]) != 1 or not answer or answer not in statement or len(statement) > 160:
        return None
    queries = [q for q in record["queries"] if len(q["prompt"]) <= 160]
    prompts = tuple(q["prompt"] for q in queries if q["type"] in ("rewrite", "rephrase"))
    others = tuple(q["prompt"] for q in queries if q["type"] == "locality")
    return EditRecord(statement, prompts, answer, others, record["relation"] or "") if prompts else None
