"""From a record to the text: nothing is released before the block that it is in has its hash.

A recall gives the stored bytes or raises; it never gives other bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from incomes_plugin.errors import VerbatimMismatch
from incomes_plugin.lab.verbatim.record import BLOCK_TOKENS, VerbatimChunk, VerbatimRecord, block_digests, digest
from incomes_plugin.lab.verbatim.targets import text_of

RecallDecode = Callable[[Sequence[torch.Tensor], Sequence[int]], list[list[int]]]
"""Vectors `[K, hidden]` of chunks, and the most tokens of each -> what greedy decoding says, end token included."""


class BlockCheck:
    """Tokens of one chunk go in as they are decoded; those of checked blocks come out.

    Args:
        end_id: the token that must follow the last one.
    """

    def __init__(self, chunk: VerbatimChunk, end_id: int) -> None:
        self._chunk, self._end_id = chunk, end_id
        self._held: list[int] = []
        self._released = 0
        self._ended = False

    def feed(self, token: int) -> list[int]:
        """Tokens that may be released now; often none.

        Raises:
            VerbatimMismatch: a block is another one, or the text goes on where it should end.
        """
        taken = self._released + len(self._held)
        if self._ended or (taken == self._chunk.num_tokens) != (token == self._end_id):
            raise VerbatimMismatch(f"recall left the text at token {taken} of {self._chunk.num_tokens}")
        if token == self._end_id:
            self._ended = True
            return []
        self._held.append(token)
        if len(self._held) < BLOCK_TOKENS and taken + 1 < self._chunk.num_tokens:
            return []
        block = self._released // BLOCK_TOKENS
        if block_digests(self._held) != self._chunk.blocks[block : block + 1]:
            raise VerbatimMismatch(f"recall left the text in block {block} of {len(self._chunk.blocks)}")
        out, self._held = self._held, []
        self._released += len(out)
        return out

    def finish(self) -> None:
        """Raise VerbatimMismatch if the end token has not come."""
        if not self._ended:
            raise VerbatimMismatch(f"recall stopped after {self._released + len(self._held)} tokens")


def checked(chunk: VerbatimChunk, said: Sequence[int], end_id: int) -> list[int]:
    """The chunk's tokens, if that is what was said. Raises VerbatimMismatch."""
    check = BlockCheck(chunk, end_id)
    released = [token for one in said for token in check.feed(one)]
    check.finish()
    return released


def recall(record: VerbatimRecord, decode: RecallDecode, tokenizer: PreTrainedTokenizerBase, end_id: int) -> str:
    """The text. Call `VerbatimRecord.require` first.

    Raises:
        VerbatimMismatch: a block or the whole text has another hash.
    """
    chunks = record.chunks
    said = decode([chunk.vectors for chunk in chunks], [chunk.num_tokens + 1 for chunk in chunks])
    ids = [token for chunk, own in zip(chunks, said, strict=True) for token in checked(chunk, own, end_id)]
    text = text_of(tokenizer, ids)
    if digest(text.encode()) != record.text_sha256:
        raise VerbatimMismatch("recall gave the right tokens but another text: the tokenizer is another one")
    return text
