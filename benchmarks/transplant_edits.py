"""Edit success of a transplanted model: held-out invented facts, asked one at a time on the reference path."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from incomes_plugin.evaluation.backends.hf import HfGenerator
from incomes_plugin.evaluation.interface import Answer, EditText, Question, messages
from incomes_plugin.evaluation.metrics import Outcome, Share
from incomes_plugin.evaluation.run import RunOptions, Workload
from incomes_plugin.transplant.checkpoint import write_checkpoint
from incomes_plugin.transplant.prepare import Prepared
from incomes_plugin.transplant.recipe import Recipe

SEED = 2027
MAX_ANSWER_TOKENS = 32


def written_model(prepared: Prepared, recipe: Recipe, folder: Path) -> Path:
    """The transplanted checkpoint, made anew."""
    out = folder / f"{prepared.donor.folder.name}-{prepared.cut}-{recipe.method}"
    shutil.rmtree(out, ignore_errors=True)
    write_checkpoint(prepared, recipe, out)
    return out


def domain_text(data: Path, num_bytes: int) -> str:
    """What users of the model write: published edits of the dev splits, and the questions about them."""
    lines: list[str] = []
    for dataset in ("counterfact", "zsre"):
        selection = Workload.draw(
            RunOptions(dataset, data_dir=data / "edits", edits=num_bytes // 100, seed=SEED)
        ).selection
        lines += [edit.text for edit in selection.edits]
        lines += [question.prompt for question in selection.questions if question.type in ("rewrite", "rephrase")]
    random.Random(SEED).shuffle(lines)
    return "\n".join(lines).encode()[:num_bytes].decode(errors="ignore")


def edit_success(model: Path, sizes: Sequence[int], ask: int, prepared: Prepared | None = None) -> dict[str, Any]:
    """Shares of right answers among each number of edits; for a transplant also by what the edit is spelled with."""
    generator = HfGenerator(model, 2048)
    found: dict[str, Any] = {}
    for size in sizes:
        edits, questions = _workload(size, ask)
        outcomes = [Outcome(q, a) for q, a in zip(questions, _answers(generator, edits, questions, size), strict=True)]
        right = [outcome.strict for outcome in outcomes]
        found[str(size)] = {"right": sum(right), "asked": len(right), "ci": _interval(right)}
        said = Counter(outcome.answer.text for outcome in outcomes if not outcome.strict)
        found[str(size)]["refused"] = said["I do not know"]
        if prepared is not None:
            found[str(size)]["by_spelling"] = _by_spelling(prepared, edits, outcomes)
    return {"success": found}


def _workload(size: int, ask: int) -> tuple[list[EditText], list[Question]]:
    options = RunOptions("invented", edits=max(size, ask), limit=ask, seed=SEED)
    selection = Workload.draw(options).selection
    return list(selection.edits), [question for question in selection.questions if question.type == "rewrite"]


def _answers(
    generator: HfGenerator, edits: Sequence[EditText], questions: Sequence[Question], size: int
) -> list[Answer]:
    """With one edit, every question meets its own edit alone."""
    prompts = [generator.chat_ids(messages(question)) for question in questions]
    if size > 1:
        return generator.generate(prompts, generator.add(edits), MAX_ANSWER_TOKENS)
    by_index = {edit.index: edit for edit in edits}
    alone = [generator.add([by_index[question.edit]]) for question in questions if question.edit is not None]
    pairs = zip(prompts, alone, strict=True)
    return [generator.generate([prompt], pool, MAX_ANSWER_TOKENS)[0] for prompt, pool in pairs]


def _by_spelling(prepared: Prepared, edits: Sequence[EditText], outcomes: Sequence[Outcome]) -> dict[str, list[int]]:
    """(right, asked) of edits that are cut as the base cuts them, cut otherwise, or hold an estimated token."""
    estimated, sources = set(prepared.rows.estimated), prepared.rows.sources
    by_index = {edit.index: edit.text for edit in edits}
    found = {"as before": [0, 0], "cut otherwise": [0, 0], "estimated": [0, 0]}
    for outcome in outcomes:
        text = by_index[outcome.question.edit or 0]
        new, old = (
            side(text, add_special_tokens=False)["input_ids"]
            for side in (prepared.fitted.tokenizer, prepared.base.tokenizer)
        )
        kind = "as before" if [int(sources[index]) for index in new] == old else "cut otherwise"
        kind = "estimated" if estimated & set(new) else kind
        found[kind][0] += outcome.strict
        found[kind][1] += 1
    return found


def _interval(right: Sequence[bool]) -> list[float]:
    share = Share.of(right)
    return [share.ci_low, share.ci_high]
