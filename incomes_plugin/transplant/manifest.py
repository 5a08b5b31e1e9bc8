"""What a transplant records in `transplant/` beside the checkpoint, and the base rebuilt from it byte by byte.

    manifest.json       hashes of the base's, the donor's and the new files; which tensors of which files were replaced
    rows.safetensors    `sources` [V] int64; rows of the base that have no place in the new matrices, by tensor name
    base/               the base's small files; of a rewritten weight file its header

Rows of tokens that both vocabularies have are in the new matrices bit by bit, so they are not stored twice.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from incomes_plugin.errors import InvalidValue
from incomes_plugin.transplant.lineage import FOLDER, MANIFEST, ROWS
from incomes_plugin.transplant.matrices import TensorPlace, model_files
from incomes_plugin.transplant.prepare import Prepared
from incomes_plugin.transplant.stream import copy_file, copy_range, read_header, write_rows

FORMAT = 1
BASE = "base"
_DONOR_FILES = ("*.safetensors", "tokenizer*", "vocab.json", "merges.txt", "config.json")


def record(prepared: Prepared, folder: Path, method: str, k: int, rewritten: list[Path]) -> None:
    """Write the record of a transplant into the new checkpoint's `folder`."""
    place = folder / FOLDER
    (place / BASE).mkdir(parents=True)
    base = prepared.base.folder
    tensors = [pair.base for pair in prepared.pairs]
    for path in model_files(base):
        if path in rewritten:
            with path.open("rb") as file:
                _, start = read_header(file)
                file.seek(0)
                (place / BASE / path.name).write_bytes(file.read(start))
        elif not _same(path, folder / path.name):
            copy_file(path, place / BASE / path.name)
    _save_rows(prepared, tensors, place / ROWS)
    manifest = {
        "format": FORMAT,
        "method": method,
        "k": k,
        "base": _hashes(model_files(base)),
        "donor": _hashes(path for pattern in _DONOR_FILES for path in prepared.donor.folder.glob(pattern)),
        "result": _hashes(path for path in folder.iterdir() if path.is_file()),
        "replaced": [{"name": part.name, "file": part.file.name} for part in tensors],
        "gist_token_ids": {str(old): new for old, new in zip(prepared.gist_ids, prepared.rows.gist_ids, strict=True)},
    }
    (place / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _save_rows(prepared: Prepared, tensors: list[TensorPlace], path: Path) -> None:
    sources = prepared.rows.sources
    kept = torch.zeros(prepared.base.rows, dtype=torch.bool)
    kept[sources[sources >= 0]] = True
    rows = {part.name: part.read()[~kept].clone() for part in tensors}
    save_file({"sources": sources, **rows}, path)


def restore(folder: Path, out: Path) -> None:
    """Rebuild the base of the transplanted checkpoint in `folder`, and check every byte of it.

    Raises:
        InvalidValue: no record, a changed checkpoint, or `out` is there already.
    """
    manifest = _read_manifest(folder)
    if out.exists() and any(out.iterdir()):
        raise InvalidValue(f"{out} is not empty", param="out")
    _check(folder, manifest["result"])
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    replaced: dict[str, list[str]] = {}
    for entry in manifest["replaced"]:
        replaced.setdefault(entry["file"], []).append(entry["name"])
    stored = load_file(folder / FOLDER / ROWS)
    for name in manifest["base"]:
        if name in replaced:
            _rebuild(folder, name, replaced[name], stored, unfinished / name)
        else:
            kept = folder / FOLDER / BASE / name
            copy_file(kept if kept.is_file() else folder / name, unfinished / name)
    _check(unfinished, manifest["base"])
    if out.exists():
        out.rmdir()
    unfinished.rename(out)


def _rebuild(folder: Path, name: str, replaced: list[str], stored: dict[str, torch.Tensor], target: Path) -> None:
    """A weight file of the base: its own header, the body from the new file, matrices from copies and stored rows."""
    header_path = folder / FOLDER / BASE / name
    with header_path.open("rb") as file:
        old_header, _ = read_header(file)
    with (folder / name).open("rb") as new, target.open("wb") as file:
        new_header, start = read_header(new)
        file.write(header_path.read_bytes())
        entries = {key: entry for key, entry in old_header.items() if key != "__metadata__"}
        for tensor in sorted(entries, key=lambda key: entries[key]["data_offsets"][0]):
            if tensor in replaced:
                current = TensorPlace(tensor, folder / name).read()
                write_rows(file, _old_rows(current, stored["sources"], stored[tensor]))
            else:
                begin, end = new_header[tensor]["data_offsets"]
                copy_range(new, file, start + begin, start + end)


def _old_rows(current: torch.Tensor, sources: torch.Tensor, lost: torch.Tensor) -> torch.Tensor:
    """The base's matrix `[V_base, E]`."""
    copied = sources >= 0
    kept = sources[copied]
    rows = int(kept.unique().numel()) + len(lost)
    old = torch.empty(rows, current.shape[1], dtype=current.dtype)
    missing = torch.ones(rows, dtype=torch.bool)
    missing[kept] = False
    old[kept] = current[copied]
    old[missing] = lost
    return old


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / FOLDER / MANIFEST
    if not path.is_file():
        raise InvalidValue(f"{folder} has no {FOLDER}/{MANIFEST}: not the result of a transplant", param="restore")
    manifest: dict[str, Any] = json.loads(path.read_text())
    if manifest.get("format") != FORMAT:
        raise InvalidValue(f"{path}: format {manifest.get('format')!r}, expected {FORMAT}", param="restore")
    return manifest


def _check(folder: Path, expected: dict[str, str]) -> None:
    found = _hashes(folder / name for name in expected if (folder / name).is_file())
    wrong = [name for name, value in expected.items() if found.get(name) != value]
    if wrong:
        raise InvalidValue(f"{', '.join(wrong)} in {folder}: not what the manifest says", param="restore")


def _hashes(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 by file name."""
    found = {}
    for path in sorted(set(paths)):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.stat().st_size == other.stat().st_size and _hashes([one]) == _hashes([other])
