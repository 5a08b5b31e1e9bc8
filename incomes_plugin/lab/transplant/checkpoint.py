"""A plan in, a checkpoint folder out: new matrices, the fitted tokenizer, stored token ids at their new places.

The body's tensors are copied byte by byte, and so are the adapter's: nothing in them depends on the vocabulary. Two
things in the adapter belong to its base and are computed again: the base's fingerprint and the token ids of the chat
template. The adapter lies in `adapter/` in the new folder. The folder gets its name only when it is complete.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.lab.progress import StageProgress
from incomes_plugin.lab.transplant.estimate import MatrixJob, make_matrix
from incomes_plugin.lab.transplant.matrices import model_files
from incomes_plugin.lab.transplant.methods import Recipe
from incomes_plugin.lab.transplant.prepare import MatrixPair, Prepared
from incomes_plugin.lab.transplant.rows import RowPlan
from incomes_plugin.lab.transplant.stream import Replacement, copy_file, rewrite
from incomes_plugin.model.adapter import BaseModel, EditAdapter
from incomes_plugin.model.template import template_of

TOKENIZER_FILES = frozenset(
    ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
     "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json", "README.md", "base.json")
)  # fmt: skip
"""Files of the base that are not copied: its tokenizer, and the card and manifest, which speak of other files."""
ADAPTER = "adapter"
"""Folder of the adapter inside a transplanted checkpoint."""


@dataclass
class Written:
    """What was made of the matrices.

    Attributes:
        spelled: for each matrix, the ids that no method could make a row for.
        lengths: for each matrix, lengths of copied and of estimated rows.
    """

    k: int = 0
    spelled: dict[str, tuple[int, ...]] = field(default_factory=dict)
    lengths: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)


def write_checkpoint(prepared: Prepared, recipe: Recipe, out: Path, report: StageProgress | None = None) -> Written:
    """Write the transplanted model.

    Raises:
        InvalidValue: `out` is there already, or the base stops at a token that has no place in the new vocabulary.
    """
    if out.exists() and any(out.iterdir()):
        raise InvalidValue(f"{out} is not empty", param="out")
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    base = prepared.base.folder
    written = Written()
    replaced = _replacements(prepared, recipe, written, report)
    for path in model_files(base):
        if path in replaced:
            rewrite(path, unfinished / path.name, replaced[path])
        elif path.name not in TOKENIZER_FILES:
            copy_file(path, unfinished / path.name)
    prepared.fitted.tokenizer.save_pretrained(unfinished)
    _move_ids(unfinished, prepared)
    if prepared.adapter:
        _moved_adapter(prepared.adapter, prepared, unfinished, out).save(unfinished / ADAPTER)
    if out.exists():
        out.rmdir()
    unfinished.rename(out)
    return written


def _replacements(
    prepared: Prepared, recipe: Recipe, written: Written, report: StageProgress | None
) -> dict[Path, dict[str, Replacement]]:
    """What is made for which tensor of which file."""
    replaced: dict[Path, dict[str, Replacement]] = {}
    for pair in prepared.pairs:
        replacement = Replacement(prepared.rows.num_rows, _maker(prepared, pair, recipe, written, report))
        replaced.setdefault(pair.base.file, {})[pair.base.name] = replacement
    return replaced


def _maker(
    prepared: Prepared, pair: MatrixPair, recipe: Recipe, written: Written, report: StageProgress | None
) -> Callable[[], torch.Tensor]:
    def make() -> torch.Tensor:
        donor = pair.donor.read() if pair.donor else None
        written.k = recipe.atoms((pair.donor or pair.base).shape()[1])
        job = MatrixJob.of(prepared, pair, recipe, written.k)
        told = (lambda done, total: report(pair.part, done, total)) if report else None
        made = make_matrix(job, pair.base.read(), donor, told)
        written.spelled[pair.part] = made.spelled
        written.lengths[pair.part] = _lengths(prepared.rows, made.weight)
        return made.weight

    return make


def _lengths(rows: RowPlan, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Lengths of copied and of estimated rows."""
    lengths = weight.float().norm(dim=1)
    groups = {"copied": lengths[rows.sources >= 0], "estimated": lengths[list(rows.estimated)]}
    return {name: found for name, found in groups.items() if len(found)}


def _move_ids(folder: Path, prepared: Prepared) -> None:
    """Token ids in the configuration and the generation defaults."""
    _change(folder / "config.json", lambda found: _moved(found, prepared.rows) | {"vocab_size": prepared.rows.num_rows})
    _change(folder / "generation_config.json", lambda found: _moved(found, prepared.rows))


def _moved_adapter(adapter: EditAdapter, prepared: Prepared, folder: Path, name: Path) -> EditAdapter:
    """The adapter of the new base, whose files are complete in `folder` and will be called `name`."""
    base = BaseModel(str(name.absolute()), base_fingerprint(folder))
    return replace(adapter, base=base, template=template_of(prepared.fitted.tokenizer))


def _change(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    if path.is_file():
        path.write_text(json.dumps(change(json.loads(path.read_text())), indent=2) + "\n")


def _moved(config: dict[str, Any], rows: RowPlan) -> dict[str, Any]:
    """Every `…_token_id` at its new place; lists keep what has one."""
    moved = dict(config)
    for name, value in config.items():
        if name.endswith("_token_id") and isinstance(value, list):
            found = [rows.new_id(index) for index in value]
            moved[name] = [index for index in found if index is not None]
        elif name.endswith("_token_id") and isinstance(value, int):
            moved[name] = rows.new_id(value)
        if name == "eos_token_id" and value not in (None, []) and moved[name] in (None, []):
            raise InvalidValue(f"the base stops at {value}, which has no place in the new vocabulary", param="map")
    return moved
