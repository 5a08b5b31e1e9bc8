"""Small real gists for the store's tests."""

from __future__ import annotations

import torch
from incomes_server.edits import CompressionOutcome

from incomes_plugin.gist import Gist, dump_gists
from incomes_plugin.gist.types import Packed


def gist_of(edit_id: str, version: int, rows: torch.Tensor) -> Gist:
    """A gist of one layer and one head whose features, keys and values are all `rows` `[E, D]`."""
    heads = rows[None, None]
    return Gist(edit_id, version, Packed.of(rows), Packed.of(heads), Packed.of(heads))


def outcome_of(edit_id: str, version: int, *, fingerprint: str = "mf_a", num_tokens: int = 2) -> CompressionOutcome:
    """A good outcome of compressing this edit version; 18 bytes a token, and the header."""
    gist = gist_of(edit_id, version, torch.ones(num_tokens, 4))
    return CompressionOutcome(edit_id, version, dump_gists([gist], fingerprint))
