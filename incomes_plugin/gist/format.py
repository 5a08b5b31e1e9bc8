"""Gists as bytes: safetensors with a JSON header. Used on the wire, in the store and towards the workers.

One blob holds one or many gists. Tensors `<i>.k` and `<i>.v`, each `[L', G, K, D]`; the metadata key `incomes`
holds `{"format": 1, "fingerprint": str, "gists": [[edit_id, version], ...]}` in the order of `<i>`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from safetensors import SafetensorError
from safetensors.torch import load, save

from incomes_plugin.errors import FingerprintMismatch, GistFormatError
from incomes_plugin.gist.header import FORMAT, read_header
from incomes_plugin.gist.types import Gist

__all__ = ["dump_gists", "load_gists", "read_header"]


def dump_gists(gists: Sequence[Gist], fingerprint: str) -> bytes:
    """Serialise gists made by the model with `fingerprint`."""
    tensors = {}
    for i, gist in enumerate(gists):
        tensors[f"{i}.k"] = gist.keys.contiguous()
        tensors[f"{i}.v"] = gist.values.contiguous()
    header = {"format": FORMAT, "fingerprint": fingerprint, "gists": [[g.edit_id, g.version] for g in gists]}
    return save(tensors, metadata={"incomes": json.dumps(header)})


def load_gists(blob: bytes, fingerprint: str) -> list[Gist]:
    """Read gists back.

    Raises:
        GistFormatError: damaged or foreign bytes.
        FingerprintMismatch: made by another model than `fingerprint`.
    """
    header = read_header(blob)
    if header["fingerprint"] != fingerprint:
        raise FingerprintMismatch(
            f"gist was made by model {header['fingerprint']}, this engine runs {fingerprint}; compress the edit again"
        )
    try:
        tensors = load(blob)
    except (SafetensorError, ValueError) as error:
        raise GistFormatError(f"damaged gist blob: {error}; compress the edit again") from error
    names = header["gists"]
    if not isinstance(names, list) or len(tensors) != 2 * len(names):
        raise GistFormatError(f"gist blob names {names!r} but holds {len(tensors)} tensors; compress the edit again")
    return [Gist(str(n[0]), int(n[1]), tensors[f"{i}.k"], tensors[f"{i}.v"]) for i, n in enumerate(names)]
