"""All that is asked about a dictionary: its facts in two wordings, what it has no fact for, and unrelated prompts."""

from __future__ import annotations

import random
from collections.abc import Sequence

from incomes_plugin.evaluation.unrelated import UNRELATED_PROMPTS
from incomes_plugin.facts.check.dictionary import Entry
from incomes_plugin.facts.check.memories import Questions
from incomes_plugin.facts.check.wording import question_of
from incomes_plugin.training.data.wording import request

FOREIGN, UNRELATED = 400, 1000
_SEED = 43


def questions_about(entries: Sequence[Entry]) -> Questions:
    """The questions; the same dictionary has the same ones."""
    rng = random.Random(_SEED)
    requests = [request(rng) for _ in range(UNRELATED - len(UNRELATED_PROMPTS))]
    unrelated = [*UNRELATED_PROMPTS, *requests]
    rng.shuffle(unrelated)
    asked, otherwise = [entry.asked for entry in entries], [entry.asked_otherwise for entry in entries]
    return Questions(asked, otherwise, _foreign(entries, rng), unrelated)


def _foreign(entries: Sequence[Entry], rng: random.Random) -> list[str]:
    """A subject of the dictionary with a relation of another fact, where it has no such fact."""
    known = {(entry.subject.casefold(), entry.relation.casefold()) for entry in entries}
    relations = list(dict.fromkeys(entry.relation for entry in entries))
    subjects = list(dict.fromkeys(entry.subject for entry in entries))
    drawn = ((rng.choice(subjects), rng.choice(relations)) for _ in range(4 * FOREIGN))
    free = dict.fromkeys(pair for pair in drawn if (pair[0].casefold(), pair[1].casefold()) not in known)
    return [question_of(*pair) for pair in list(free)[:FOREIGN]]
