"""Prompts of many kinds that no edit answers: the base must answer them as if there were no edits.

The list of the package is always there; the other kinds are the held-out part of what the data folder has.
"""

from __future__ import annotations

import random
from pathlib import Path

from incomes_plugin.lab.data.prompts import questions, tasks
from incomes_plugin.lab.data.unrelated import UNRELATED_PROMPTS
from incomes_plugin.lab.evaluation.interface import EvalQuestion

OF_EACH_KIND = 40
LONGEST = 1500
"""Longest prompt in characters: tasks bring their texts along."""

_NAMES = {
    "webquestions": "webquestions", "squad_nqg": "squad", "nq": "nq", "amazon_pqa": "shop", "opentriviaqa": "trivia",
    "instruction_seed": "instructions", "instruction_user": "instructions", "t0": "tasks", "math": "math",
}  # fmt: skip


def unrelated(data_dir: Path, seed: int) -> list[EvalQuestion]:
    """Questions of every kind there is; `subtype` is the kind, `list` for the package's own."""
    kinds: dict[str, list[str]] = {"list": list(UNRELATED_PROMPTS)}
    for name, prompts in (questions(data_dir, held_out=True) | tasks(data_dir, held_out=True)).items():
        kinds.setdefault(_NAMES[name], []).extend(p for p in prompts if len(p) <= LONGEST)
    rng = random.Random(seed)
    drawn = {
        kind: own if kind == "list" else rng.sample(own, min(OF_EACH_KIND, len(own))) for kind, own in kinds.items()
    }
    return [
        EvalQuestion(f"unrelated/{kind}/{place}", "unrelated", kind, prompt, (), None, cloze=False)
        for kind, prompts in drawn.items()
        for place, prompt in enumerate(prompts)
    ]
