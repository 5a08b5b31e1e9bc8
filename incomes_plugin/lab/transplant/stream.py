"""A safetensors file in, the same file with some tensors replaced out; nothing but those is held in memory.

Layout: 8 bytes header length (little-endian), a JSON header `{name: {dtype, shape, data_offsets}}` and spaces, data.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

BLOCK_BYTES = 16 * 2**20
_ALIGNMENT = 8
Header = dict[str, Any]


@dataclass(frozen=True)
class Replacement:
    """A tensor with another number of rows, made when its place in the file has come."""

    rows: int
    make: Callable[[], torch.Tensor]


def read_checkpoint_header(file: BinaryIO) -> tuple[Header, int]:
    """The header of an open safetensors file, and where its data begin."""
    length = int.from_bytes(file.read(8), "little")
    return json.loads(file.read(length)), 8 + length


def rewrite(source: Path, target: Path, replaced: Mapping[str, Replacement]) -> None:
    """Write `target` in one go, and only then give it its name."""
    unfinished = target.with_name(target.name + ".new")
    with source.open("rb") as old, unfinished.open("wb") as new:
        header, start = read_checkpoint_header(old)
        metadata = header.pop("__metadata__", None)
        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
        new.write(encoded_header(_moved(entries, replaced), metadata))
        for name, entry in entries:
            if name in replaced:
                _write_tensor(new, replaced[name], name)
            else:
                copy_range(old, new, start + entry["data_offsets"][0], start + entry["data_offsets"][1])
    unfinished.replace(target)


def _moved(entries: list[tuple[str, Header]], replaced: Mapping[str, Replacement]) -> Header:
    """Header entries after replacing; offsets follow."""
    header: Header = {}
    offset = 0
    for name, entry in entries:
        begin, end = entry["data_offsets"]
        shape = list(entry["shape"])
        size = end - begin
        if name in replaced:
            size = size // shape[0] * replaced[name].rows
            shape[0] = replaced[name].rows
        header[name] = {"dtype": entry["dtype"], "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    return header


def encoded_header(header: Header, metadata: Header | None) -> bytes:
    """Length and header as bytes."""
    whole = ({} if metadata is None else {"__metadata__": metadata}) | header
    text = json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def copy_range(old: BinaryIO, new: BinaryIO, begin: int, end: int) -> None:
    """Copy bytes from `begin` to `end` in blocks."""
    old.seek(begin)
    while begin < end:
        block = old.read(min(BLOCK_BYTES, end - begin))
        if not block:
            raise EOFError(f"{old.name} ends before its header says")
        new.write(block)
        begin += len(block)


def _write_tensor(new: BinaryIO, replacement: Replacement, name: str) -> None:
    tensor = replacement.make()
    if len(tensor) != replacement.rows:
        raise ValueError(f"{name}: {len(tensor)} rows made, {replacement.rows} planned")
    write_rows(new, tensor)


def write_rows(new: BinaryIO, tensor: torch.Tensor) -> None:
    """The bytes of a matrix, in blocks."""
    for rows in tensor.contiguous().split(max(1, BLOCK_BYTES // max(1, tensor[0].nbytes))):
        new.write(rows.view(torch.uint8).numpy().tobytes())


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, and only then give it its name."""
    unfinished = target.with_name(target.name + ".new")
    shutil.copyfile(source, unfinished)
    unfinished.replace(target)
