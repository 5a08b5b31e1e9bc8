"""The copy of a base checkpoint that an edit adapter is served with: the base's own tensors, and rows for gist tokens.

Gist tokens take ids that no text uses: reserved ones where the base has enough, else new rows behind the vocabulary.
Only the input embedding learns of them. The output embedding keeps its rows, bit by bit; new rows of it repeat the
token the base never says, because a checkpoint has one size for both. So logits over the base's vocabulary stay what
they were. Tied embeddings are untied for it. All other tensors keep their bytes, and the base's folder is only read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from incomes_plugin.errors import InvalidValue
from incomes_plugin.model.adapter import CONFIG_FILE, INDEX_FILE, TENSOR_FILE
from incomes_plugin.training.spare import spare_ids

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_ALIGNMENT = 64
"""Rows of an extended embedding are a multiple of this."""


@dataclass(frozen=True)
class GistRows:
    """Where gist tokens live in a copy of the base.

    Attributes:
        ids: vocabulary ids.
        rows: rows of the copy's embeddings; the base's own number if its spare ids were enough.
        silent: token whose output row new rows repeat.
    """

    ids: tuple[int, ...]
    rows: int
    silent: int


def plan_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, samples: Sequence[list[int]], count: int
) -> GistRows:
    """Choose ids for `count` gist tokens.

    Args:
        samples: token ids of some chats; the token least expected anywhere in them is the silent one.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[union-attr, arg-type, index]
    spare = spare_ids(tokenizer, rows)
    if len(spare) >= count:
        return GistRows(tuple(spare[:count]), rows, silent=0)
    extended = -(-(rows + count) // _ALIGNMENT) * _ALIGNMENT
    return GistRows(tuple(range(rows, rows + count)), extended, _least_expected(model, samples))


@torch.inference_mode()
def _least_expected(model: PreTrainedModel, samples: Sequence[list[int]]) -> int:
    highest: torch.Tensor | None = None
    for ids in samples:
        logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().log_softmax(dim=-1)
        best = logits.amax(dim=0)
        highest = best if highest is None else torch.maximum(highest, best)
    return 0 if highest is None else int(highest.argmin())


def write_copy(base: Path, folder: Path, plan: GistRows, gist_rows: torch.Tensor) -> None:
    """Write or refresh the copy of `base` in `folder`, with `gist_rows` `[G, E]` in the input embedding.

    Raises:
        InvalidValue: the base is not in safetensors, or `folder` is the base itself.
    """
    weights = sorted(base.glob("model*.safetensors"))
    if not weights or base.resolve() == folder.resolve():
        raise InvalidValue(f"{base} must hold model*.safetensors, and the copy needs a folder of its own", param="base")
    folder.mkdir(parents=True, exist_ok=True)
    ours = {CONFIG_FILE, TENSOR_FILE, INDEX_FILE, "config.json", *(path.name for path in weights)}
    for path in base.iterdir():
        if path.is_file() and path.name not in ours:
            _refresh(path, folder / path.name)
    changed = False
    weight_map: dict[str, str] = {}
    for path in weights:
        names = _names(path)
        if EMBEDDING in names or HEAD in names:
            names, changed = _write_rows(path, folder / path.name, plan, gist_rows), True
        else:
            _refresh(path, folder / path.name)
        weight_map |= dict.fromkeys(names, path.name)
    if not changed:
        raise InvalidValue(f"{base} has no {EMBEDDING}: not a Llama, Qwen or Mistral checkpoint", param="base")
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1) + "\n")
    _write_config(base, folder, plan)


def _write_rows(source: Path, target: Path, plan: GistRows, gist_rows: torch.Tensor) -> list[str]:
    """Write a weight file with its embeddings changed; returns the names of its tensors."""
    tensors = load_file(source)
    if EMBEDDING in tensors:
        embedding = tensors[EMBEDDING]
        if HEAD not in tensors and _is_tied(source.parent):
            tensors[HEAD] = _longer(embedding, plan, embedding[plan.silent])
        changed = _longer(embedding, plan, embedding[plan.silent]).clone()
        changed[list(plan.ids)] = gist_rows.detach().to("cpu", embedding.dtype)
        tensors[EMBEDDING] = changed
    if HEAD in tensors and len(tensors[HEAD]) < plan.rows:
        tensors[HEAD] = _longer(tensors[HEAD], plan, tensors[HEAD][plan.silent])
    new = target.with_suffix(".new")
    save_file(tensors, new, metadata={"format": "pt"})
    new.replace(target)
    return list(tensors)


def _longer(weight: torch.Tensor, plan: GistRows, row: torch.Tensor) -> torch.Tensor:
    return torch.cat([weight, row[None].expand(plan.rows - len(weight), -1)])


def _is_tied(base: Path) -> bool:
    config: dict[str, Any] = json.loads((base / "config.json").read_text())
    return bool(config.get("tie_word_embeddings", True))


def _write_config(base: Path, folder: Path, plan: GistRows) -> None:
    config: dict[str, Any] = json.loads((base / "config.json").read_text())
    config |= {"vocab_size": plan.rows, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _names(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _refresh(source: Path, target: Path) -> None:
    """Copy a file unless the copy is there already."""
    if target.is_file():
        old, new = target.stat(), source.stat()
        if (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns):
            return
    shutil.copy2(source, target)
