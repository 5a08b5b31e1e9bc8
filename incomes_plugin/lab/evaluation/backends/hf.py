"""The reference backend: base and adapter in plain PyTorch, one question at a time. Float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from incomes_plugin.gist.fingerprint import model_fingerprint
from incomes_plugin.gist.types import Gist
from incomes_plugin.lab.evaluation.backends.chat import ChatModel
from incomes_plugin.lab.evaluation.backends.plain import PlainHfGenerator
from incomes_plugin.lab.evaluation.interface import Answer, Done, EvalEdit, PoolHandle, nothing
from incomes_plugin.model.hf import EditableModel, ReferencePool


@dataclass(frozen=True)
class _Pool(PoolHandle):
    gists: ReferencePool


class HfGenerator(ChatModel):
    """`Generator` on Hugging Face transformers. Of the edits that were read the likeliest counts as the heaviest."""

    def __init__(self, base_dir: Path, adapter_dir: Path, max_context_tokens: int) -> None:
        super().__init__(base_dir, max_context_tokens)
        self.fingerprint = model_fingerprint(base_dir, adapter_dir, torch.float32)
        self._model = EditableModel.load(base_dir, adapter_dir)

    def add(self, edits: Sequence[EvalEdit]) -> PoolHandle:
        """Capture edits one by one."""
        captured: list[Gist] = []
        refused: list[int] = []
        for edit in edits:
            ids = self.edit_ids(edit.text)
            if len(ids) > self._model.adapter.max_edit_tokens:
                refused.append(edit.index)
            else:
                captured.append(self._model.capture(ids, edit_id=str(edit.index)))
        return _Pool(
            num_edits=len(captured),
            refused=tuple(refused),
            num_bytes=sum(gist.num_bytes for gist in captured),
            gists=self._model.pool(captured),
        )

    def generate(
        self, prompts: Sequence[Sequence[int]], pool: PoolHandle | None, max_tokens: int, done: Done = nothing
    ) -> list[Answer]:
        """One after the other."""
        gists = pool.gists if isinstance(pool, _Pool) else None
        found = []
        for prompt in prompts:
            tokens = self._model.generate(prompt, gists, max_tokens=max_tokens, stop_ids=tuple(self.stop_ids))
            text = str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
            rows = self._model.picks.edits if gists else ()
            applied = tuple(int(gists.gists[row].edit_id) for row in rows) if gists else ()
            found.append(Answer(text, tuple(tokens), applied, len(prompt)))
            done(len(found))
        return found

    def release(self, pool: PoolHandle) -> None:
        """Nothing to do: Python frees the pool when nobody uses it."""

    def sibling(self, base_dir: Path) -> PlainHfGenerator:
        """See `Generator`."""
        return PlainHfGenerator(base_dir, self.max_context_tokens)

    def close(self) -> None:
        """Hold nothing."""
