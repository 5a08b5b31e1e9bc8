"""A dictionary of facts, one JSON object a line: checked where it enters.

    {"subject": "Zorvex 9000", "relation": "warranty", "answer": "36 months"}

`statement`, `question` and `rephrase` may be given too; else they are made of the three (`wording.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from incomes_plugin.errors import InvalidValue
from incomes_plugin.facts.check.wording import question_of, rephrase_of, statement_of

LEAST_FACTS, MOST_FACTS = 10, 20_000
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=400)]


class Entry(BaseModel):
    """One fact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: Text
    relation: Text
    answer: Text
    statement: Text | None = None
    question: Text | None = None
    rephrase: Text | None = None

    @property
    def stated(self) -> str:
        """The edit text."""
        return self.statement or statement_of(self.subject, self.relation, self.answer)

    @property
    def asked(self) -> str:
        """The question that it is stored under."""
        return self.question or question_of(self.subject, self.relation)

    @property
    def asked_otherwise(self) -> str:
        """Another question with the same answer."""
        return self.rephrase or rephrase_of(self.subject, self.relation)


def read_dictionary(path: Path) -> list[Entry]:
    """All facts of a file.

    Raises:
        InvalidValue: what is wrong, with line, field, limit and what to do.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path} cannot be read as UTF-8 text: {error}", param="dictionary") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not LEAST_FACTS <= len(numbered) <= MOST_FACTS:
        raise InvalidValue(
            f"{path} has {len(numbered):,} facts, the limits are {LEAST_FACTS} and {MOST_FACTS:,}; "
            + ("add some" if len(numbered) < LEAST_FACTS else "check a part of them"), param="dictionary",
        )  # fmt: skip
    entries = [_entry(path, number, line) for number, line in numbered]
    _refuse_contradictions(path, zip((number for number, _ in numbered), entries, strict=True))
    return entries


def _entry(path: Path, number: int, line: str) -> Entry:
    try:
        return Entry.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "fact"
        raise InvalidValue(
            f"{path}, line {number}, field `{field}`: {first['msg']}; mend the line, docs/facts.md has the fields",
            param=field,
        ) from error
    except ValueError as error:
        raise InvalidValue(
            f"{path}, line {number}: not JSON ({error}); write one JSON object a line", param="dictionary"
        ) from error


def _refuse_contradictions(path: Path, numbered: Iterator[tuple[int, Entry]]) -> None:
    seen: dict[tuple[str, str], int] = {}
    for number, entry in numbered:
        first = seen.setdefault((entry.subject.casefold(), entry.relation.casefold()), number)
        if first != number:
            raise InvalidValue(
                f"{path}, line {number}, field `relation`: line {first} has a fact with this subject and relation "
                "already, the limit is one; delete one of the two", param="relation",
            )  # fmt: skip
