"""What stands around a recall, without any weights: tokenizer, recall template, end token, and what vectors are valid
for. The lab and the server take it from the same folder.

A recall sees `[template tokens | K vectors]` and answers with the text and the end token. The template is one token,
the tokenizer's BOS (its end token where it has none): without it nothing would predict a text's first token.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.gist.fingerprint import base_fingerprint


@dataclass(frozen=True)
class VectorOrigin:
    """What a stored vector is valid for.

    Attributes:
        model: hash of weights, configuration and tokenizer, and the dtype in which they compute.
        tokenizer: hash of the tokenizer's vocabulary and rules alone.
        template: hash of the recall template and the end token.
    """

    model: str
    tokenizer: str
    template: str


@dataclass(frozen=True)
class RecallFrame:
    """See the module docstring.

    Attributes:
        dtype: that the base computes in.
        template: token ids in front of the vectors.
        end_id: token behind the text.
    """

    folder: Path
    dtype: torch.dtype
    tokenizer: PreTrainedTokenizerBase
    template: tuple[int, ...]
    end_id: int

    @classmethod
    def of(cls, folder: Path, dtype: torch.dtype) -> RecallFrame:
        """The frame of a base.

        Raises:
            UnsupportedEngine: its tokenizer has no end token.
        """
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        if tokenizer.eos_token_id is None:
            raise UnsupportedEngine(
                f"the tokenizer of {folder} names no end token (eos_token), where would recall end?"
            )
        end_id, bos = int(tokenizer.eos_token_id), tokenizer.bos_token_id  # type: ignore[arg-type]
        return cls(folder, dtype, tokenizer, (end_id if bos is None else int(bos),), end_id)  # type: ignore[arg-type]

    @cached_property
    def origin(self) -> VectorOrigin:
        """Fingerprints. Weights are read once (1 GB/s)."""
        model = hashlib.sha256(f"{base_fingerprint(self.folder)} {self.dtype}".encode()).hexdigest()
        rules = self.tokenizer.backend_tokenizer.to_str()  # type: ignore[attr-defined]
        frame = f"{self.template} {self.end_id}"
        return VectorOrigin(
            f"vf_{model[:16]}", *(hashlib.sha256(part.encode()).hexdigest()[:16] for part in (rules, frame))
        )
