"""ModelFingerprint: identity of everything a gist's numbers depend on. Engines share gists only if it is equal."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

_WEIGHT_FILES = (
    "config.json", "tokenizer.json", "edit_adapter.json", "*.safetensors", "tokenizer.model", "vocab.json", "merges.txt"
)  # fmt: skip
"""What decides a gist's numbers; the last three are the tokenizer where there is no tokenizer.json."""


def model_fingerprint(model_dir: Path, dtype: torch.dtype) -> str:
    """Hash of the checkpoint, tokenizer, adapter and compute dtype, as `mf_<16 hex>`.

    Weights are read once (hashing runs at about 1 GB/s); tensor-parallel size does not enter.

    Raises:
        FileNotFoundError: `model_dir` has no config.json.
    """
    if not (model_dir / "config.json").is_file():
        raise FileNotFoundError(f"{model_dir} has no config.json; give a model directory")
    digest = hashlib.sha256(str(dtype).encode())
    for pattern in _WEIGHT_FILES:
        for path in sorted(model_dir.glob(pattern)):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"mf_{digest.hexdigest()[:16]}"
