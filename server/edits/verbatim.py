"""Verbatim edits: texts that come back to the byte. By what they are found, and how far their vectors are.

planning ──► optimising ──► verified      the serving engine says the text from its vectors
   ▲             ├────────► text_fallback  no vectors hold it, or it is not worth any
   │             └────────► failed         the worker broke off, each time
   └── stale ◄── verified, when the model, its tokenizer or its template are others, or a recall went wrong

In each state a verbatim edit is answered with its text; only where it is verified do vectors say it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from incomes_plugin.gist.edit import EditKey

_COMMON = frozenset(
    re.findall(
        r"\w+",
        "what does says this that with from have has need should much many must your into about give tell quote read "
        "exact wording text where when which them they there cual cuando como dice dicen cita para esta este",
    )
)
"""Words of four letters and more that questions have, whatever they ask for."""
_SHORT = frozenset(
    re.findall(
        r"\w+",
        "a an the of is are was do did i we you it its to in on at for and or can may how who why my our me us be by "
        "as if so no not any all has had el la los las lo de del un una y o e en es al se su mi por con sin ser hay",
    )
)
"""Shorter ones; they count only in keys that have no other words."""
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Letters of scripts without spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
_RUN = re.compile(rf"([{_UNSPACED}]+)|[^\W{_UNSPACED}]+")
_HIRAGANA = re.compile("[\u3041-\u309f]+")


class VerbatimState(StrEnum):
    """How far the vectors of a verbatim edit version are."""

    PLANNING = "planning"
    OPTIMISING = "optimising"
    VERIFIED = "verified"
    TEXT_FALLBACK = "text_fallback"
    FAILED = "failed"
    STALE = "stale"


S = VerbatimState

VERBATIM_TRANSITIONS: dict[VerbatimState, frozenset[VerbatimState]] = {
    S.PLANNING: frozenset({S.OPTIMISING, S.FAILED}),
    S.STALE: frozenset({S.OPTIMISING, S.FAILED}),
    S.OPTIMISING: frozenset({S.VERIFIED, S.TEXT_FALLBACK, S.FAILED, S.OPTIMISING}),
    S.VERIFIED: frozenset({S.STALE}),
    S.TEXT_FALLBACK: frozenset({S.PLANNING}),
    S.FAILED: frozenset({S.PLANNING, S.STALE}),
}
"""An edit that is optimised goes to another worker when its own gives no sign of life; those that were tried too often
fail. Another model is another chance for all."""

MOST_ATTEMPTS = 3


@dataclass(frozen=True)
class RecallKeys:
    """What a verbatim edit is found by, beside its own words: a title, questions that it answers, or both."""

    title: str | None = None
    questions: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerbatimStatus:
    """How a verbatim edit version is said.

    Attributes:
        reason: why it is not said from vectors; None where it is, or where nothing is wrong.
        vectors, num_bytes: of its record; 0 without one.
        tokens: of its text; 0 before it was planned.
        margin: least lead of a token, in logits. steps: what the search took.
    """

    keys: RecallKeys
    state: VerbatimState
    reason: str | None = None
    vectors: int = 0
    num_bytes: int = 0
    tokens: int = 0
    margin: float | None = None
    steps: int = 0


@dataclass(frozen=True)
class VerbatimText:
    """What a recall needs of a verbatim edit version.

    Attributes:
        reason: why the text has to be taken from here; None where there is a record.
        record: what `dump` of a `VerbatimRecord` wrote; None unless the state is `verified`.
    """

    edit_id: str
    version: int
    state: VerbatimState
    reason: str | None
    title: str | None
    questions: tuple[str, ...]
    text: str
    record: bytes | None


@dataclass(frozen=True)
class VerbatimJob:
    """A text to make vectors of.

    Attributes:
        former: a record to begin at: its own, that is stale, or one of a former version. former_text: what that said.
    """

    edit_id: str
    version: int
    text: str
    former: bytes | None = field(default=None, repr=False)
    former_text: str | None = field(default=None, repr=False)

    @property
    def edit(self) -> EditKey:
        """Which edit version it is."""
        return self.edit_id, self.version


@dataclass(frozen=True)
class VerbatimLease:
    """What a worker has: edit versions that it may go on with, and new ones."""

    held: tuple[EditKey, ...]
    jobs: tuple[VerbatimJob, ...]


@dataclass(frozen=True)
class VerbatimOutcome:
    """What became of a job.

    Attributes:
        state: `verified`, `text_fallback` or `failed`. reason: why there are no vectors.
        origin: hashes of the model, tokenizer and template that were used.
    """

    edit_id: str
    version: int
    state: VerbatimState
    reason: str | None
    origin: str
    record: bytes | None = field(default=None, repr=False)
    vectors: int = 0
    tokens: int = 0
    margin: float | None = None
    steps: int = 0

    @property
    def edit(self) -> EditKey:
        """Which edit version it is."""
        return self.edit_id, self.version


def found_by(keys: RecallKeys) -> str:
    """The words that the gist of a verbatim edit is made from: questions that it answers. Of the wordings that were
    measured (`python -m benchmarks.verbatim_finding`) this one is found best; its own text in it makes it worse."""
    title = keys.title
    asked = [] if not title else [f"What does the {title[0].lower()}{title[1:]} say?"]
    return "\n".join([*asked, *keys.questions])


def asks_for(keys: RecallKeys, question: str) -> bool:
    """Whether a question has all words of the title, or two thirds of those of an example question. The verifier was
    trained on facts: it takes "What does the arbitration clause say?" for a question about the cancellation clause."""
    asked = _words(question)
    return _names(keys.title or "", asked, 3) or any(_names(one, asked, 2) for one in keys.questions)


def _names(key: str, asked: Sequence[str], thirds: int) -> bool:
    """Whether `asked` has so many thirds of the words of a key that tell texts apart. Where it has none of these, its
    other words count, and where those are in every question too, all of them, which then have to be there."""
    words = _words(key)
    for tells, counts in ((_tells, _counts), (_counts, _counts)):
        if wanted := {_begin(word) for word in words if tells(word)}:
            said = {_begin(word) for word in asked if counts(word)}
            return 3 * len(wanted & said) >= thirds * len(wanted)
    return bool(words) and set(map(_begin, words)) <= set(map(_begin, asked))


def _counts(word: str) -> bool:
    return word.casefold() not in _COMMON | _SHORT


def _tells(word: str) -> bool:
    """Long words, numbers and abbreviations; pairs of letters, but for those of Japanese endings and particles."""
    if _RUN.fullmatch(word)[1]:  # type: ignore[index]  # `_words` found it so
        return not _HIRAGANA.fullmatch(word)
    is_short = len(word.casefold()) <= 3 and not (len(word) > 1 and word.isupper()) and not any(map(str.isdigit, word))
    return not is_short and _counts(word)


def _words(text: str) -> list[str]:
    """Words without accents; of a script without spaces, each two letters that stand side by side."""
    plain = unicodedata.normalize("NFKD", text)
    letters = "".join(each for each in plain if unicodedata.category(each)[0] != "M")
    found: list[str] = []
    for run in _RUN.finditer(letters):
        word = run[0]
        is_pairs = run[1] and len(word) > 2
        found += [word[i : i + 2] for i in range(len(word) - 1)] if is_pairs else [word]
    return found


def _begin(word: str) -> str:
    """Inflected forms begin alike."""
    return word.casefold()[:5]
