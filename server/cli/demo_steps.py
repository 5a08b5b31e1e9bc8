"""The demo: a fact is added, asked about, not seen from another edit set, found among 1,000 others, and retired, all on
a real server.

A general question is asked after each step; its answer must stay the same to the bit. `Demo.run` prints the
transcript and raises `DemoFailed` at the first step that does not hold.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from incomes_server.api.admin.schemas import WaitFor
from incomes_server.client import Client
from openai import OpenAI

from incomes_plugin.model.base import Say

QUESTION = "How long is the warranty of the Korvan pump?"
FACT = "The warranty of the Korvan pump is 36 months."
ANSWER = "36 months"
GENERAL = "What is the capital of France?"
OTHER_SET = "another-customer"
SHOWN_CHARS = 70
FACTS_FILE = Path(__file__).with_name("demo_facts.txt.gz")
"""1,000 statements about things that do not exist, made by `incomes_plugin.lab.data.facts`, one a line:

    facts = FactSource(2026, held_out=True).distinct(1000)
    gzip.compress("".join(f"{fact.statement}\\n" for fact in facts).encode(), mtime=0)
"""


class DemoFailed(Exception):
    """A step of the demo did not hold."""


@dataclass(frozen=True)
class ChatAnswer:
    """What the model said, how sure it was of each token, and which edits it used."""

    text: str
    logprobs: tuple[float, ...]
    edits: dict[str, Any]

    @property
    def credit(self) -> str:
        """The edit with the largest weight."""
        applied = self.edits["applied"]
        return f"{applied[0]['edit']} weight {applied[0]['weight']:.2f}" if applied else "no edit"


class Demo:
    """The steps, in order, on a running server."""

    def __init__(
        self, chat_url: str, admin_url: str, facts: Sequence[str], say: Say, api_key: str | None = None
    ) -> None:
        self.openai = OpenAI(base_url=chat_url + "/v1", api_key=api_key or "none", max_retries=0)
        self.admin = Client(admin_url, api_key)
        self.model = self.openai.models.list().data[0].id
        self.facts = facts
        self.say = say

    def run(self) -> None:
        """All steps.

        Raises:
            DemoFailed: names the step.
        """
        before, general = self._before()
        edit = self._add()
        self._check_edited(self._show("with the edit", self.ask(QUESTION)), edit)
        self._check_same("general question", self.ask(GENERAL), general)
        self._other_set(before)
        self._import()
        self._check_edited(self._show(f"among {len(self.facts) + 1:,} edits", self.ask(QUESTION)), edit)
        self._check_same("general question", self.ask(GENERAL), general)
        self._retire(edit)
        _check(ANSWER not in self._show("after retiring", self.ask(QUESTION)).text, "the edit must be gone")
        self._empty()
        self._check_same("without edits", self.ask(QUESTION), before)
        self._check_same("general question", self.ask(GENERAL), general)
        count = len(before.logprobs) + len(general.logprobs)
        self.say(f"\nAll as it should be; {count} token logprobs bit-identical to the first answers.")

    def _before(self) -> tuple[ChatAnswer, ChatAnswer]:
        """The answers without edits."""
        self.say(f"Q: {QUESTION}\n   (and a general question: {GENERAL})\n")
        for question in (QUESTION, GENERAL):
            self.ask(question)  # fills the prefix cache: a prompt computed as a whole differs from it in its last bits
        before = self._show("before", self.ask(QUESTION))
        _check(ANSWER not in before.text, "the model must not know the fact before the edit")
        return before, self._show("general question", self.ask(GENERAL))

    def ask(self, question: str, edit_set: str | None = None) -> ChatAnswer:
        """Ask, greedily."""
        edits = {"edit_set": edit_set} if edit_set else {}
        completion = self.openai.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=32,
            logprobs=True,
            extra_body={"return_edit_attributions": True} | ({"edits": edits} if edits else {}),
        )
        choice = completion.choices[0]
        content = choice.logprobs.content if choice.logprobs else None
        logprobs = tuple(token.logprob for token in content or ())
        extra = completion.model_extra or {}
        return ChatAnswer((choice.message.content or "").strip(), logprobs, extra["edits"])

    def _add(self) -> str:
        start = time.monotonic()
        edit = self.admin.edits.add(FACT)
        elapsed_ms = (time.monotonic() - start) * 1000
        _check(edit.reached is WaitFor.ACTIVE, f"the edit must become active, it is {edit.reached}")
        self.say(f"\n+ {FACT}\n  {edit.id} active after {elapsed_ms:.0f} ms\n")
        return edit.id

    def _check_edited(self, answer: ChatAnswer, edit: str) -> None:
        _check(ANSWER in answer.text, f"the answer must be {ANSWER!r}")
        applied = answer.edits["applied"]
        _check(bool(applied) and applied[0]["edit"] == edit, f"{edit} must have the largest weight")

    def _check_same(self, when: str, answer: ChatAnswer, first: ChatAnswer) -> None:
        self._show(when, answer)
        _check(answer.text == first.text, f"{when}: the answer must be the first one, {first.text!r}")
        _check(answer.logprobs == first.logprobs, f"{when}: the token logprobs must be bit-identical")

    def _other_set(self, before: ChatAnswer) -> None:
        self.admin.edit_sets.create(OTHER_SET)
        self._check_same(f"in {OTHER_SET}", self.ask(QUESTION, OTHER_SET), before)

    def _import(self) -> None:
        lines = [json.dumps({"custom_id": f"line-{i}", "text": text}).encode() for i, text in enumerate(self.facts)]
        start = time.monotonic()
        results = self.admin.edits.import_lines(lines, timeout_s=300).data
        elapsed_s = time.monotonic() - start
        failed = [result for result in results if result.error]
        _check(len(results) == len(lines) and not failed, f"{len(failed)} lines failed: {failed[:1]}")
        self.say(
            f"\n+ {len(lines):,} more edits active after {elapsed_s:.1f} s ({len(lines) / elapsed_s:.0f} edits/s)\n"
        )

    def _retire(self, edit: str) -> None:
        start = time.monotonic()
        answer = self.admin.edits.retire(edit)
        _check(answer.reached is WaitFor.ACTIVE, "the retirement must reach every replica")
        self.say(f"\n- {edit} retired after {(time.monotonic() - start) * 1000:.0f} ms\n")

    def _empty(self) -> None:
        answer = self.admin.edit_sets.delete("default", timeout_s=300)
        _check(answer.reached is WaitFor.ACTIVE, "the deletion must reach every replica")
        self.say("\n- the other edits deleted with their set\n")

    def _show(self, when: str, answer: ChatAnswer) -> ChatAnswer:
        self.say(f"  {when:<22} {shorten(answer.text, SHOWN_CHARS, placeholder=' …')!r}  ({answer.credit})")
        return answer


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise DemoFailed(what)


def invented_facts(count: int) -> list[str]:
    """The first `count` of the packaged statements."""
    return gzip.decompress(FACTS_FILE.read_bytes()).decode().splitlines()[:count]
