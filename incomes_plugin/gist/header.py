"""What the store does with a gist blob without torch, so that it stays a light process: read its header, empty it."""

from __future__ import annotations

import json

from incomes_plugin.errors import GistFormatError

FORMAT = 4


def read_header(blob: bytes) -> dict[str, object]:
    """The JSON header of a gist blob, without its tensors.

    Raises:
        GistFormatError: the blob is not a gist file of this format.
    """
    try:
        size = int.from_bytes(blob[:8], "little")
        metadata = json.loads(blob[8 : 8 + size]).get("__metadata__") or {}
        header = json.loads(metadata["incomes"])
    except (ValueError, KeyError, UnicodeDecodeError, AttributeError) as error:
        raise GistFormatError(f"not a gist blob: {error}; compress the edit again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise GistFormatError(f"gist format {header!r}, expected {FORMAT}; compress the edit again")
    return header


def emptied(blob: bytes) -> bytes:
    """A blob for the same edit versions with one token of zeros each: what stands in old snapshots for an erased gist.

    Raises:
        GistFormatError: the blob is no safetensors file.
    """
    try:
        size = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8 : 8 + size])
        end = 0
        for name in sorted(header.keys() - {"__metadata__"}):
            tensor = header[name]
            start, stop = tensor["data_offsets"]
            rows = tensor["shape"][0]
            one_token = (stop - start) // max(1, rows)
            tensor |= {"shape": [min(1, rows), *tensor["shape"][1:]], "data_offsets": [end, end + one_token]}
            end += one_token
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise GistFormatError(f"not a gist blob: {error}") from error
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + bytes(end)
