"""Gists as bytes: safetensors with a JSON header. The same bytes lie in the store and travel to the engine's workers.

One blob holds one or many gists. Gist `<i>` has four tensors, `<i>.features` and `<i>.latents` (int8) and
`<i>.features_scale` and `<i>.latents_scale` (float16), shaped as in `types.py`; the metadata key `incomes` holds
`{"format": 3, "fingerprint": str, "gists": [[edit_id, version], ...]}` in the order of `<i>`, and
`"verbatim": [i, ...]` where there are gists of verbatim edits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from incomes_plugin.errors import FingerprintMismatch, GistFormatError
from incomes_plugin.gist.edit import EditKey
from incomes_plugin.gist.header import FORMAT, read_header
from incomes_plugin.gist.types import Gist, Packed

__all__ = ["dump_gists", "load_gists", "read_header"]
_PARTS = ("features", "latents")


def dump_gists(gists: Sequence[Gist], fingerprint: str) -> bytes:
    """Serialise gists made by the model with `fingerprint`."""
    tensors = {}
    for i, gist in enumerate(gists):
        for name in _PARTS:
            packed: Packed = getattr(gist, name)
            tensors[f"{i}.{name}"] = packed.data.contiguous()
            tensors[f"{i}.{name}_scale"] = packed.scale.contiguous()
    header = {"format": FORMAT, "fingerprint": fingerprint, "gists": [[g.edit_id, g.version] for g in gists]}
    if verbatim := [i for i, gist in enumerate(gists) if gist.verbatim]:
        header["verbatim"] = verbatim
    return save(tensors, metadata={"incomes": json.dumps(header)})


def load_gists(blob: bytes, fingerprint: str) -> list[Gist]:
    """Read gists back.

    Raises:
        GistFormatError: the bytes are damaged, or no gist file.
        FingerprintMismatch: made by another model than `fingerprint`.
    """
    header = read_header(blob)
    made_by = header.get("fingerprint")
    if made_by != fingerprint:
        raise FingerprintMismatch(
            f"gist was made by model {made_by}, this engine runs {fingerprint}; compress the edit again"
        )
    try:
        tensors = load(blob)
    except (SafetensorError, ValueError) as error:
        raise GistFormatError(f"damaged gist blob: {error}; compress the edit again") from error
    names = _names(header.get("gists"))
    if len(tensors) != 2 * len(_PARTS) * len(names):
        raise GistFormatError(f"gist blob names {names!r} but holds {len(tensors)} tensors; compress the edit again")
    marked = header.get("verbatim", [])
    if not isinstance(marked, list) or not all(i in range(len(names)) for i in marked):
        raise GistFormatError(f"gist blob of {len(names)} gists marks {marked!r}; compress the edit again")
    parts = [[_packed(tensors, i, part) for part in _PARTS] for i in range(len(names))]
    return [Gist(*name, own[0], own[1], i in marked) for i, (name, own) in enumerate(zip(names, parts, strict=True))]


def _names(found: object) -> list[EditKey]:
    """The edit versions that a header names."""
    try:
        return [(str(edit_id), int(version)) for edit_id, version in found]  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise GistFormatError(f"gist blob names {found!r}; compress the edit again") from error


def _packed(tensors: Mapping[str, torch.Tensor], index: int, part: str) -> Packed:
    try:
        data, scale = tensors[f"{index}.{part}"], tensors[f"{index}.{part}_scale"]
    except KeyError as error:
        raise GistFormatError(f"gist blob lacks tensor {error}; compress the edit again") from error
    if data.dtype != torch.int8 or scale.dtype != torch.float16 or data.shape[:-1] != scale.shape:
        raise GistFormatError(
            f"{index}.{part}: {data.dtype} {tuple(data.shape)} with scales {scale.dtype} {tuple(scale.shape)}; "
            "compress the edit again"
        )
    return Packed(data, scale)
