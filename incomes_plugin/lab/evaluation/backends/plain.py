"""A checkpoint without an adapter in plain PyTorch, float32: what a fine-tuned copy of the base is asked with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.lab.evaluation.backends.chat import ChatModel
from incomes_plugin.lab.evaluation.interface import Answer, Done, EvalEdit, PoolHandle, nothing


def load_plain(base_dir: Path) -> PreTrainedModel:
    """The checkpoint in `base_dir`, in eval mode; nobody else holds this copy."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    return model.eval()


@torch.inference_mode()
def decode(model: PreTrainedModel, prompt: Sequence[int], *, max_tokens: int, stop_ids: Collection[int]) -> list[int]:
    """Greedy continuation without the stop token."""
    cache, fed, answer = DynamicCache(config=model.config), list(prompt), list[int]()
    while len(answer) < max_tokens:
        output = model(input_ids=torch.tensor([fed]), past_key_values=cache, use_cache=True)
        token = int(output.logits[0, -1].argmax())
        if token in stop_ids:
            break
        answer.append(token)
        fed = [token]
    return answer


class PlainHfGenerator(ChatModel):
    """A checkpoint without an adapter."""

    def __init__(self, base_dir: Path, max_context_tokens: int) -> None:
        super().__init__(base_dir, max_context_tokens)
        self.fingerprint = base_fingerprint(base_dir)
        self._model = load_plain(base_dir)

    def add(self, edits: Sequence[EvalEdit]) -> PoolHandle:
        """Hold no edits."""
        return PoolHandle(0, tuple(edit.index for edit in edits), 0)

    def generate(
        self, prompts: Sequence[Sequence[int]], pool: PoolHandle | None, max_tokens: int, done: Done = nothing
    ) -> list[Answer]:
        """One after the other."""
        found = []
        for prompt in prompts:
            tokens = decode(self._model, prompt, max_tokens=max_tokens, stop_ids=self.stop_ids)
            text = str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
            found.append(Answer(text, tuple(tokens), (), len(prompt)))
            done(len(found))
        return found

    def release(self, pool: PoolHandle) -> None:
        """Nothing to do."""

    def sibling(self, base_dir: Path) -> PlainHfGenerator:
        """See `Generator`."""
        return PlainHfGenerator(base_dir, self.max_context_tokens)

    def close(self) -> None:
        """Hold nothing."""
