"""A transplanted checkpoint in, the model it was made from out: which of that model's gists are this one's, too.

A gist's numbers depend on the rows of the edit's tokens and on the body. The body is the base's, and so is the row of
every copied token: an edit whose new tokens are copies of its old ones, one by one, has the gists that it had.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from incomes_plugin.gist.fingerprint import fingerprint_of

FOLDER, MANIFEST, ROWS = "transplant", "manifest.json", "rows.safetensors"


@dataclass(frozen=True)
class Lineage:
    """Where a transplanted model comes from.

    Attributes:
        base: fingerprint of the model it was made from, at the same compute dtype.
        sources: for every token id the base's id whose row it has, -1 for other rows.
    """

    base: str
    sources: tuple[int, ...]

    @classmethod
    def read(cls, model_dir: Path, fingerprint: str, dtype: torch.dtype) -> Lineage | None:
        """None for a model that is no transplant, or was changed since.

        Args:
            fingerprint: of the model in `model_dir` at `dtype`.
        """
        path = model_dir / FOLDER / MANIFEST
        if not path.is_file():
            return None
        manifest = json.loads(path.read_text())
        if fingerprint_of(manifest["result"], dtype) != fingerprint:
            return None
        sources = load_file(model_dir / FOLDER / ROWS)["sources"]
        return cls(fingerprint_of(manifest["base"], dtype), tuple(sources.tolist()))

    def same_tokens(self, new: Sequence[int], old: Sequence[int]) -> bool:
        """Whether an edit that is `new` tokens now was `old` tokens of the base with the same rows."""
        return [self.sources[index] for index in new] == list(old)
