"""A plan's texts as the base's token ids: what the frozen base is given, and what each stage learns from."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

from incomes_plugin.gist.spelling import Speller
from incomes_plugin.lab.adapt.plan import Messages, Plan, encode
from incomes_plugin.model.edit_encoder import EditEncoder
from incomes_plugin.selection.question import PromptTemplate


class PlanTokens:
    """Token ids of a plan, and where they lie.

    Attributes:
        edits, asked, refused: of the plan's edits and prompts, in its order.
        spellings: of the edits.
        answers: of what each of `asked` is to be answered with, and of the end of the answer.
        prefix: what the template puts in front of a lone user turn's text.
    """

    def __init__(self, tokenizer: Any, template: PromptTemplate, plan: Plan) -> None:
        self._tokenizer, self._template, self._plan = tokenizer, template, plan
        self._edit = EditEncoder(self._text)
        self.prefix = self._prefix()
        self.edits = [self.edit(example.statement) for example in plan.edits]
        self.spellings = list(map(Speller(tokenizer), self.edits))
        self.asked = [self.prompt(asked.messages) for asked in plan.asked]
        self.refused = [self.prompt(refused.messages) for refused in plan.refused]
        self.answers = [[*self._text(asked.answer or ""), self._end()] for asked in plan.asked]

    def edit(self, text: str) -> list[int]:
        """Token ids of an edit's text."""
        return list(self._edit(text))

    def prompt(self, messages: Messages) -> list[int]:
        """Token ids of a chat prompt up to where the answer begins."""
        return encode(self._tokenizer, messages)

    def known_part(self, asked: int) -> slice:
        """Where the part of an answer lies that the base must know by itself."""
        whole = self._plan.asked[asked]
        answer = whole.answer or ""
        before = answer.removesuffix(whole.known).rstrip()
        return slice(len(self._text(before)), len(self._text(answer)))

    def given(self, asked: int) -> int:
        """How many tokens of an answer are given, not learned."""
        return len(self._text(self._plan.asked[asked].given))

    def read_rows(self, known: set[int], most: int, *, seed: int) -> list[int]:
        """Questions that reading learns from: the rare kinds, as far as the base knows the rest, and some others.

        Args:
            known: questions of which the base knows what it must know by itself.
            most: so many at most, chains not counted.
        """
        asked = self._plan.asked
        chained = [i for i, a in enumerate(asked) if a.further and (not a.known or i in known)]
        rare = [i for i, a in enumerate(asked) if a.rare and not a.further and (not a.known or i in known)]
        usual = [i for i, a in enumerate(asked) if not a.rare and a.answer is not None]
        rng = random.Random(seed)
        rng.shuffle(usual)
        rng.shuffle(rare)
        rare = rare[: most // 2]
        return sorted((*rare, *usual[: most - len(rare)], *chained))

    def routing_texts(self) -> str:
        """Hash of the texts that routing learns from: edits, questions, and which edits answer them."""
        return _hash([self.edits, self.asked, [(a.edits, a.further) for a in self._plan.asked]])

    def verifying_texts(self) -> str:
        """Hash of what verification learns from beside that: what an edit is about, prompts that none answers, and
        which questions lead on."""
        plan = self._plan
        about = [(e.subject, e.kind) for e in plan.edits]
        leads = [(a.asides, bool(a.answer) and not a.known, a.unverified) for a in plan.asked]
        near = [r.near for r in plan.refused]
        return _hash([self.routing_texts(), about, leads, self.refused, near])

    def reading_texts(self, rows: Sequence[int]) -> str:
        """Hash of what reading learns from beside what routing does, of which it takes the rivals: some answers."""
        return _hash([self.routing_texts(), list(rows), [(self.answers[i], self.given(i)) for i in rows]])

    def _text(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _end(self) -> int:
        """What ends an answer: the first token behind the user's turn, or the end-of-text token."""
        first = self._template.answer_prefix[0]
        return first if first in self._tokenizer.all_special_ids else int(self._tokenizer.eos_token_id)

    def _prefix(self) -> list[int]:
        one, two = (self.prompt([{"role": "user", "content": text}]) for text in ("Quartz", "7"))
        same = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), 0)
        return one[:same]


def _hash(texts: list[object]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
