"""ModelFingerprint: identity of everything a gist's numbers depend on. Engines share gists only if it is equal."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping
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
    files = {path.name: path for pattern in _WEIGHT_FILES for path in model_dir.glob(pattern)}
    return fingerprint_of({name: _sha256(path) for name, path in files.items()}, dtype)


def fingerprint_of(hashes: Mapping[str, str], dtype: torch.dtype) -> str:
    """The fingerprint of a checkpoint whose files have these SHA-256 (hex, by name); other files do not count."""
    digest = hashlib.sha256(str(dtype).encode())
    for pattern in _WEIGHT_FILES:
        for name in sorted(fnmatch.filter(hashes, pattern)):
            digest.update(name.encode())
            digest.update(bytes.fromhex(hashes[name]))
    return f"mf_{digest.hexdigest()[:16]}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
