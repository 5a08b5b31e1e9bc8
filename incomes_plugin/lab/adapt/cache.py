"""Captured features on disk, in chunks: an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial as partial_of
from pathlib import Path
from typing import TypeVar

import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.adapt.beside import processes, side_by_side
from incomes_plugin.lab.adapt.features import EditFeatures, Ragged, ReadingFeatures
from incomes_plugin.lab.progress import StageProgress

CHUNK = 1000
"""Texts captured between two writes: at most a minute or two of work is lost."""

Found = TypeVar("Found", Ragged, EditFeatures, ReadingFeatures)


class FeatureCache:
    """A folder of chunks, named by what they were made of.

    Args:
        folder: made where absent.
        identity: everything else that the numbers depend on: the base's fingerprint, layers, dtype, prefix.
        most_bytes: the folder may not grow beyond this.
    """

    def __init__(self, folder: Path, identity: Sequence[object], most_bytes: int) -> None:
        self._folder = folder
        self._identity = json.dumps([str(part) for part in identity])
        self._most_bytes = most_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def capture(
        self,
        stage: str,
        texts: Sequence[object],
        compute: Callable[[Sequence[int]], Found],
        report: StageProgress,
    ) -> Found:
        """Features of all texts, in order. Chunks are captured side by side.

        Args:
            compute: captures the texts with these indices.

        Raises:
            InvalidValue: the cache would grow beyond its limit.
        """
        parts = [range(start, min(start + CHUNK, len(texts))) for start in range(0, len(texts), CHUNK)]
        paths = [self.path(stage, [texts[i] for i in indices]) for indices in parts]
        chunks = dict(zip(paths, parts, strict=True))  # chunks of the same texts are one file
        missing = [path for path in chunks if not path.is_file()]
        workers = max(1, min(processes(), len(missing)))

        def work(first: int) -> None:
            for path in missing[first::workers]:
                self._check_room(path)
                partial = path.with_suffix(".part")
                torch.save(_tensors(compute(chunks[path])), partial)
                partial.replace(path)
                if first == 0:
                    there = sum(len(indices) for chunk, indices in zip(paths, parts, strict=True) if chunk.is_file())
                    report(stage, there, len(texts))

        side_by_side(partial_of(work, 0), [partial_of(work, first) for first in range(1, workers)])
        report(stage, len(texts), len(texts))
        return _join([_from_tensors(torch.load(path)) for path in paths])  # type: ignore[return-value]

    def path(self, stage: str, made_of: Sequence[object]) -> Path:
        """A file of a stage, named by what it is made of."""
        key = hashlib.sha256((self._identity + json.dumps(made_of, default=str)).encode()).hexdigest()[:20]
        return self._folder / f"{stage}-{key}.pt"

    def _check_room(self, path: Path) -> None:
        used = sum(file.stat().st_size for file in self._folder.iterdir())
        free = shutil.disk_usage(self._folder).free
        if used > self._most_bytes or free < 1 << 30:
            raise InvalidValue(
                f"the feature cache {path.parent} holds {used / 1e9:.1f} GB of {self._most_bytes / 1e9:.1f} GB, "
                f"{free / 1e9:.1f} GB are free; raise --cache-gb, lower --scale, or give another --cache",
                param="cache",
            )


def _tensors(found: Ragged | EditFeatures | ReadingFeatures) -> dict[str, torch.Tensor]:
    if isinstance(found, Ragged):
        return {"flat": found.flat, "starts": found.starts}
    tensors: dict[str, torch.Tensor] = {}
    for name in (field.name for field in fields(found)):
        part = getattr(found, name)
        own = {"": part} if isinstance(part, torch.Tensor) else {"flat": part.flat, "starts": part.starts}
        tensors |= {f"{name}.{key}": tensor for key, tensor in own.items()}
    return tensors


def _from_tensors(tensors: dict[str, torch.Tensor]) -> Ragged | EditFeatures | ReadingFeatures:
    if "flat" in tensors:
        return Ragged(tensors["flat"], tensors["starts"])
    cls = ReadingFeatures if "rows.flat" in tensors else EditFeatures
    parts: dict[str, torch.Tensor | Ragged] = {}
    for field in fields(cls):
        flat = tensors.get(f"{field.name}.flat")
        parts[field.name] = tensors[f"{field.name}."] if flat is None else Ragged(flat, tensors[f"{field.name}.starts"])
    return cls(**parts)  # type: ignore[arg-type]


def _join(parts: Sequence[Ragged | EditFeatures | ReadingFeatures]) -> Ragged | EditFeatures | ReadingFeatures:
    first = parts[0]
    if isinstance(first, Ragged):
        return _join_ragged(parts)  # type: ignore[arg-type]
    joined: dict[str, torch.Tensor | Ragged] = {}
    for field in fields(first):
        own = [getattr(part, field.name) for part in parts]
        if isinstance(own[0], Ragged):
            joined[field.name] = _join_ragged(own)
        else:
            joined[field.name] = own[0] if field.name == "prefix" else torch.cat(own)
    return type(first)(**joined)  # type: ignore[arg-type]


def _join_ragged(parts: Sequence[Ragged]) -> Ragged:
    lengths = torch.cat([part.starts.diff() for part in parts])
    return Ragged(torch.cat([part.flat for part in parts]), torch.cat([torch.zeros(1).long(), lengths.cumsum(0)]))
