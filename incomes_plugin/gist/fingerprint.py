"""Fingerprints: a hash of the files that a gist's numbers depend on. Engines share gists only if theirs are equal.

An adapter names the `base_fingerprint` that it was made for; a gist blob carries a `model_fingerprint`.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch

from incomes_plugin.errors import GistFormatError

_BASE_FILES = ("config.json", "tokenizer.json", "*.safetensors", "tokenizer.model", "vocab.json", "merges.txt")
"""Files that decide what a base computes. The last three hold the tokenizer where there is no tokenizer.json."""

_ADAPTER_FILES = ("edit_adapter.json", "edit_adapter.safetensors")


def base_fingerprint(base_dir: Path) -> str:
    """Hash of a base's weights, configuration and tokenizer, as `bf_<16 hex>`.

    Weights are read once (hashing runs at about 1 GB/s). Files of an adapter in the same folder do not count.

    Raises:
        FileNotFoundError: `base_dir` has no config.json.
    """
    if not (base_dir / "config.json").is_file():
        raise FileNotFoundError(f"{base_dir} has no config.json; give a model directory")
    files = {path.name: path for pattern in _BASE_FILES for path in base_dir.glob(pattern)}
    return base_fingerprint_of({name: _sha256(path) for name, path in files.items()})


def base_fingerprint_of(hashes: Mapping[str, str]) -> str:
    """The fingerprint of a base from the SHA-256 of its files, in hex, by file name. Files that do not decide what a
    base computes do not count."""
    digest = hashlib.sha256()
    for pattern in _BASE_FILES:
        for name in sorted(fnmatch.filter(hashes, pattern)):
            if name not in _ADAPTER_FILES:
                digest.update(name.encode())
                digest.update(bytes.fromhex(hashes[name]))
    return f"bf_{digest.hexdigest()[:16]}"


def model_fingerprint(base_dir: Path, adapter_dir: Path, dtype: torch.dtype) -> str:
    """Hash of base, adapter and compute dtype, as `mf_<16 hex>`. The tensor-parallel size does not count.

    Raises:
        FileNotFoundError: `base_dir` has no config.json.
        GistFormatError: `adapter_dir` is no adapter.
    """
    digest = hashlib.sha256(f"{base_fingerprint(base_dir)} {dtype}".encode())
    for name in _ADAPTER_FILES:
        path = adapter_dir / name
        if not path.is_file():
            raise GistFormatError(f"{adapter_dir} has no {name}: it is no edit adapter; make one with `incomes adapt`")
        digest.update(bytes.fromhex(_sha256(path)))
    return f"mf_{digest.hexdigest()[:16]}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
