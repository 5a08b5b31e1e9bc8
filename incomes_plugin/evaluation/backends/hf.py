"""The reference backend: the edit-capable model in plain PyTorch, one question at a time. It names no edits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from incomes_plugin.errors import EditTooLong
from incomes_plugin.evaluation.backends.chat import ChatModel
from incomes_plugin.evaluation.interface import Answer, EditText, PoolHandle
from incomes_plugin.gist.fingerprint import model_fingerprint
from incomes_plugin.gist.types import Gist
from incomes_plugin.model.hf import EditableModel, ReferencePool


@dataclass(frozen=True)
class _Pool(PoolHandle):
    gists: ReferencePool


class HfGenerator(ChatModel):
    """`Generator` on Hugging Face transformers, in float32."""

    def __init__(self, model_dir: Path, max_context_tokens: int) -> None:
        super().__init__(model_dir, max_context_tokens)
        self.fingerprint = model_fingerprint(model_dir, torch.float32)
        self._model = EditableModel.load(model_dir)

    def add(self, edits: Sequence[EditText]) -> PoolHandle:
        """Capture edits one by one."""
        captured: list[Gist] = []
        refused: list[int] = []
        for edit in edits:
            try:
                captured.append(self._capture(edit))
            except EditTooLong:
                refused.append(edit.index)
        return _Pool(
            num_edits=len(captured),
            refused=tuple(refused),
            num_bytes=sum(gist.num_bytes for gist in captured),
            gists=ReferencePool.of(captured),
        )

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        pool: PoolHandle | None,
        max_tokens: int,
        *,
        traced: Collection[int] = (),
    ) -> list[Answer]:
        """One after the other; nothing is traced."""
        gists = pool.gists if isinstance(pool, _Pool) else None
        return [self._answer(list(prompt), gists, max_tokens) for prompt in prompts]

    def release(self, pool: PoolHandle) -> None:
        """Leave it to the collector."""

    def close(self) -> None:
        """Hold nothing."""

    def _capture(self, edit: EditText) -> Gist:
        ids = self.text_ids(edit.text)
        most = self._model.adapter.max_edit_tokens
        if len(ids) > most:
            raise EditTooLong(f"edit {edit.index} has {len(ids)} tokens, the limit is {most}")
        return self._model.capture(ids, edit_id=str(edit.index))

    def _answer(self, prompt: list[int], gists: ReferencePool | None, max_tokens: int) -> Answer:
        stop = int(self.tokenizer.eos_token_id)
        tokens = self._model.generate(prompt, gists, max_tokens=max_tokens, stop_id=stop)
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
        return Answer(text, tuple(tokens), None, 0.0, len(prompt))
