"""Small real gists for the store's tests."""

from __future__ import annotations

import torch
from incomes_server.edits import CompressionOutcome

from incomes_plugin.gist import Gist, dump_gists
from incomes_plugin.gist.types import Packed


def gist_of(edit_id: str, version: int, rows: torch.Tensor) -> Gist:
    """A gist whose features and latents are both `rows` `[E, n]`."""
    return Gist(edit_id, version, Packed.of(rows), Packed.of(rows))


def outcome_of(edit_id: str, version: int, *, fingerprint: str = "mf_a", num_tokens: int = 2) -> CompressionOutcome:
    """A good outcome of compressing this edit version; 12 bytes a token, and the header."""
    gist = gist_of(edit_id, version, torch.ones(num_tokens, 4))
    return CompressionOutcome(edit_id, version, dump_gists([gist], fingerprint))
