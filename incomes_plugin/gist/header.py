"""The header of a gist blob, read without torch, so that the store can check a gist and stays a light process."""

from __future__ import annotations

import json

from incomes_plugin.errors import GistFormatError

FORMAT = 3


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
