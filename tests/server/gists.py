"""Small real gists for the store's tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from incomes_plugin.gist import Gist, dump_gists, read_header
from incomes_plugin.gist.edit import Captured, EditKey
from incomes_plugin.gist.types import Packed


def gist_of(edit_id: str, version: int, rows: torch.Tensor) -> Gist:
    """A gist whose features and latents are both `rows` `[E, n]`."""
    return Gist(edit_id, version, Packed.of(rows), Packed.of(rows))


def keys_of(blobs: Sequence[bytes]) -> list[EditKey]:
    """Edit versions whose gists these one-gist blobs are."""
    headers: list[Any] = [read_header(blob) for blob in blobs]
    return [(edit_id, version) for header in headers for edit_id, version in header["gists"]]


def outcome_of(edit_id: str, version: int, *, fingerprint: str = "mf_a", num_tokens: int = 2) -> Captured:
    """A good outcome of compressing this edit version; 12 bytes a token, and the header."""
    gist = gist_of(edit_id, version, torch.ones(num_tokens, 4))
    return Captured(edit_id, version, dump_gists([gist], fingerprint))
