"""What the base knows by itself: held-out questions that it answers rightly without edits. Edits must not harm that.

Found by asking the base, once for each base: the list is kept in the person's cache.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

from incomes_plugin.lab.data.archives import ArchivedQuestion, archives
from incomes_plugin.lab.evaluation.interface import Done, EvalQuestion, EvalSettings, Generator, Turn, nothing
from incomes_plugin.lab.evaluation.metrics import says

CANDIDATES = 400
"""Questions of each set that the base is asked."""

SETS = ("webquestions", "nq", "opentriviaqa")
MOST = 200
"""Questions that an evaluation asks."""


def cache_dir() -> Path:
    """Where the lists lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "incomes" / "evaluation"


def known(
    generator: Generator, base_fingerprint: str, data_dir: Path, settings: EvalSettings, done: Done = nothing
) -> list[EvalQuestion]:
    """At most `MOST` questions that the base answers rightly; none without the data folder."""
    candidates = _candidates(data_dir)
    if not candidates:
        return []
    path = cache_dir() / f"known-{base_fingerprint}-{settings.max_answer_tokens}.json"
    if path.is_file():
        right = [ArchivedQuestion(prompt, tuple(answers)) for prompt, answers in json.loads(path.read_text())]
    else:
        right = _right(generator, candidates, settings, done)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([[one.prompt, one.answers] for one in right], ensure_ascii=False) + "\n")
    drawn = random.Random(settings.seed).sample(right, min(MOST, len(right)))
    return [
        EvalQuestion(f"known/{place}", "known", None, one.prompt, one.answers, None, cloze=False)
        for place, one in enumerate(drawn)
    ]


def _candidates(data_dir: Path) -> list[ArchivedQuestion]:
    found = archives(data_dir, held_out=True)
    drawn = []
    for name in SETS:
        own = [one for one in found.get(name, []) if one.answers]
        drawn += random.Random(0).sample(own, min(CANDIDATES, len(own)))
    return drawn


def _right(
    generator: Generator, candidates: Sequence[ArchivedQuestion], settings: EvalSettings, done: Done
) -> list[ArchivedQuestion]:
    prompts = [generator.chat_ids([Turn("user", one.prompt)]) for one in candidates]
    answers = generator.generate(prompts, None, settings.max_answer_tokens, done)
    return [one for one, answer in zip(candidates, answers, strict=True) if says(answer.text, one.answers)]
