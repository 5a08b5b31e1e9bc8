"""Small real gists for the store's tests."""

from __future__ import annotations

import torch
from incomes_server.edits import CompressionOutcome

from incomes_plugin.gist import Gist, dump_gists


def outcome_of(edit_id: str, version: int, *, fingerprint: str = "mf_a", num_gists: int = 2) -> CompressionOutcome:
    """A good outcome of compressing this edit version."""
    gist = Gist(edit_id, version, torch.zeros(1, num_gists, 1, 4), torch.ones(1, num_gists, 1, 4))
    return CompressionOutcome(edit_id, version, dump_gists([gist], fingerprint), num_gists)
