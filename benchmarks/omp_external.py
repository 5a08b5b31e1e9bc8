"""The published tool on the same problem: two checkpoints in a temporary folder, its command run as a program.

Its OMP costs what a run with it takes more than a run that sets new rows to zero; loading and saving are in both. What
comes out is compared with our rows. Needs the tool's command (`--tokensurgeon`); nothing of it is imported here.
"""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from incomes_plugin.lab.transplant.omp import solve

EMBEDDING = "model.embed_tokens.weight"


def compare(command: str, dictionary: torch.Tensor, targets: torch.Tensor, k: int) -> dict[str, Any]:
    """CPU milliseconds a target of the tool, and how far its rows are from ours.

    Args:
        command: starts the tool; base, donor and output folder are appended.
    """
    base_rows = torch.randn(dictionary.shape, generator=torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory(prefix="omp-external-") as folder:
        root = Path(folder)
        _write(root / "base", base_rows, [f"t{i}" for i in range(len(dictionary))])
        names = [f"t{i}" for i in range(len(dictionary))] + [f"n{i}" for i in range(len(targets))]
        _write(root / "donor", torch.cat([dictionary, targets]), names)
        plain_s = _run(command, root, "zero", k)
        sparse_s = _run(command, root, "omp", k)
        theirs = _rows(root / "omp", len(dictionary))
    ours = solve(dictionary, targets, k).combine(base_rows)
    distances = (ours - theirs).norm(dim=1) / ours.norm(dim=1)
    return {
        "cpu_ms_per_target": 1000 * (sparse_s - plain_s) / len(targets),
        "targets": len(targets),
        "cpu_s_with_zero_rows": plain_s,
        "rows_as_ours": float((distances < 1e-2).float().mean()),
    }


def _write(folder: Path, rows: torch.Tensor, names: list[str]) -> None:
    """A checkpoint of one small layer with these rows."""
    config = LlamaConfig(
        vocab_size=len(rows), hidden_size=rows.shape[1], intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=8, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.get_parameter(EMBEDDING).copy_(rows)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="t2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    roles = {"bos_token": "t0", "eos_token": "t1", "unk_token": "t2"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)


def _run(command: str, root: Path, method: str, k: int) -> float:
    """CPU seconds of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    folders = [str(root / name) for name in ("base", "donor", method)]
    arguments = [*shlex.split(command), *folders, "--approximation-method", method, "--k", str(k)]
    subprocess.run(arguments, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _rows(folder: Path, first: int) -> torch.Tensor:
    """The new rows of its result."""
    index = folder / "model.safetensors.index.json"
    name = json.loads(index.read_text())["weight_map"][EMBEDDING] if index.is_file() else "model.safetensors"
    with safe_open(folder / name, framework="pt") as file:
        rows: torch.Tensor = file.get_tensor(EMBEDDING)[first:].float()
    return rows
