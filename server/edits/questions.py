"""Questions about what an edit states, made from its words alone: what is asked when nobody gives a question. Pure.

"The warranty of pump Z9 is 36 months." -> "What is the warranty of pump Z9?", answer "36 months"
A statement that has no such form is continued instead: its beginning is the question, its last words are the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_COPULA = re.compile(r"^(?P<subject>[^.!?]{3,200}?) (?P<verb>is|are|was|were) (?P<answer>[^.!?]{1,200}?)[.!]?$")
_ARTICLES = ("the ", "a ", "an ", "this ", "these ", "its ", "our ", "my ")
_CONTINUED_WORDS = 3
_LEAST_WORDS = 2 * _CONTINUED_WORDS


@dataclass(frozen=True)
class AskedQuestion:
    """A question, and what an answer to it has to say.

    Attributes:
        expected: the answer is right when it has one of them.
        source: `given`, or the id of the edit that the question was made from.
    """

    text: str
    expected: tuple[str, ...]
    source: str = "given"

    def accepts(self, answer: str) -> bool:
        """Whether an answer says one of the expected things, however it is spelled and spaced."""
        return any(_says(answer, expected) for expected in self.expected)


def question_of(text: str, edit_id: str) -> AskedQuestion | None:
    """The question that an edit answers; None when its words do not show one."""
    sentence = " ".join(text.split())
    found = _COPULA.match(sentence)
    if found is not None:
        subject = found["subject"]
        asked = subject[0].lower() + subject[1:] if subject.lower().startswith(_ARTICLES) else subject
        return AskedQuestion(f"What {found['verb']} {asked}?", (found["answer"].strip(),), edit_id)
    words = sentence.rstrip(".!").split(" ")
    if len(words) < _LEAST_WORDS:
        return None
    begun, rest = words[:-_CONTINUED_WORDS], words[-_CONTINUED_WORDS:]
    return AskedQuestion(f"Complete the sentence: {' '.join(begun)}", (" ".join(rest),), edit_id)


@dataclass(frozen=True)
class Asked:
    """A question and the answer that a state of an edit set gave."""

    question: AskedQuestion
    answer: str

    @property
    def passed(self) -> bool:
        """Whether the answer is right."""
        return self.question.accepts(self.answer)


@dataclass(frozen=True)
class Regressions:
    """What an evaluation changes against the one before, as questions."""

    broken: tuple[str, ...]
    mended: tuple[str, ...]
    new: tuple[str, ...]


def compare(now: Sequence[Asked], before: Sequence[Asked]) -> Regressions:
    """Questions that were right and are wrong, that were wrong and are right, and that were not asked before."""
    known = {asked.question.text: asked.passed for asked in before}
    broken = [a.question.text for a in now if known.get(a.question.text) and not a.passed]
    mended = [a.question.text for a in now if known.get(a.question.text) is False and a.passed]
    return Regressions(
        tuple(broken), tuple(mended), tuple(a.question.text for a in now if a.question.text not in known)
    )


def _says(answer: str, expected: str) -> bool:
    plain = _plain(expected)
    return plain in _plain(answer) if plain else expected in answer  # of signs alone nothing is left


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w%.,/:+-]+", " ", text.casefold()).split()).strip(".,:")
