"""Gists as bytes: safetensors with a JSON header. The same bytes lie in the store and travel to the engine's workers.

One blob holds one or many gists. Gist `<i>` has six tensors: `<i>.features` and `<i>.latents` (int8), shaped as in
`types.py`, with `<i>.features_scale` and `<i>.latents_scale` (float16), and of its spelling `<i>.spelled` `[S]` (int32,
tokens) and `<i>.spelled_at` `[S, 2]` (int16: the place, and 1 + the link). The metadata key `incomes` holds
`{"format": 4, "fingerprint": str, "gists": [[edit_id, version], ...]}` in the order of `<i>`, and
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
from incomes_plugin.gist.spelling import Spelling
from incomes_plugin.gist.types import Gist, Packed, spelling_fits

__all__ = ["dump_gists", "load_gists", "read_header"]
_PARTS = ("features", "latents")
_TENSORS = 2 * len(_PARTS) + 2


def dump_gists(gists: Sequence[Gist], fingerprint: str) -> bytes:
    """Serialise gists made by the model with `fingerprint`."""
    tensors = {}
    for i, gist in enumerate(gists):
        for name in _PARTS:
            packed: Packed = getattr(gist, name)
            tensors[f"{i}.{name}"] = packed.data.contiguous()
            tensors[f"{i}.{name}_scale"] = packed.scale.contiguous()
        spelling = gist.spelling
        tensors[f"{i}.spelled"] = spelling.tokens.contiguous()
        tensors[f"{i}.spelled_at"] = torch.stack([spelling.places, 1 + spelling.links], -1)
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
    if len(tensors) != _TENSORS * len(names):
        raise GistFormatError(f"gist blob names {names!r} but holds {len(tensors)} tensors; compress the edit again")
    marked = header.get("verbatim", [])
    if not isinstance(marked, list) or not all(i in range(len(names)) for i in marked):
        raise GistFormatError(f"gist blob of {len(names)} gists marks {marked!r}; compress the edit again")
    return [_gist(tensors, i, name, i in marked) for i, name in enumerate(names)]


def _gist(tensors: Mapping[str, torch.Tensor], index: int, edit: EditKey, verbatim: bool) -> Gist:
    features, latents = (_packed(tensors, index, part) for part in _PARTS)
    num_tokens = len(features.data)
    return Gist(*edit, features, latents, verbatim, _spelling(tensors, index, num_tokens))


def _names(found: object) -> list[EditKey]:
    """The edit versions that a header names."""
    try:
        return [(str(edit_id), int(version)) for edit_id, version in found]  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise GistFormatError(f"gist blob names {found!r}; compress the edit again") from error


def _packed(tensors: Mapping[str, torch.Tensor], index: int, part: str) -> Packed:
    data, scale = _tensor(tensors, f"{index}.{part}"), _tensor(tensors, f"{index}.{part}_scale")
    if data.dtype != torch.int8 or scale.dtype != torch.float16 or data.shape[:-1] != scale.shape:
        raise GistFormatError(
            f"{index}.{part}: {data.dtype} {tuple(data.shape)} with scales {scale.dtype} {tuple(scale.shape)}; "
            "compress the edit again"
        )
    return Packed(data, scale)


def _spelling(tensors: Mapping[str, torch.Tensor], index: int, num_tokens: int) -> Spelling:
    """Of an edit of `num_tokens` tokens."""
    tokens, at = _tensor(tensors, f"{index}.spelled"), _tensor(tensors, f"{index}.spelled_at")
    if (tokens.dtype, at.dtype) != (torch.int32, torch.int16) or tokens.dim() != 1 or at.shape != (len(tokens), 2):
        raise GistFormatError(
            f"{index}.spelled: {tokens.dtype} {tuple(tokens.shape)} at {at.dtype} {tuple(at.shape)}; "
            "compress the edit again"
        )
    spelling = Spelling(tokens, at[:, 0].contiguous(), at[:, 1] - 1)
    if not spelling_fits(spelling, num_tokens):
        raise GistFormatError(
            f"{index}.spelled: tokens, places or links outside an edit of {num_tokens} tokens; compress the edit again"
        )
    return spelling


def _tensor(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    try:
        return tensors[name]
    except KeyError as error:
        raise GistFormatError(f"gist blob lacks tensor {error}; compress the edit again") from error
