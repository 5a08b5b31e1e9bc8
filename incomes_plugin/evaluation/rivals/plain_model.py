"""A copy of the checkpoint without edits, in float32 on Hugging Face, for rivals that change it or look inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.evaluation.backends.hf import HfGenerator
from incomes_plugin.evaluation.interface import Generator


def require_hf(generator: Generator, method: str) -> None:
    """Raise UnsupportedEngine unless the backend is Hugging Face."""
    if not isinstance(generator, HfGenerator):
        raise UnsupportedEngine(f"method `{method}` runs on Hugging Face alone: use --backend hf")


def load_plain(model_dir: Path) -> PreTrainedModel:
    """The checkpoint in `model_dir`, in eval mode; nobody else holds this copy."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    return model.eval()


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    stop_id: int,
    before_step: Callable[[int], None] = lambda _position: None,
) -> list[int]:
    """Greedy continuation without the stop token.

    Args:
        before_step: called before each forward pass with the position of its first token.
    """
    cache, fed, answer = DynamicCache(config=model.config), list(prompt), list[int]()
    while len(answer) < max_tokens:
        before_step(cache.get_seq_length())
        output = model(input_ids=torch.tensor([fed]), past_key_values=cache, use_cache=True)
        token = int(output.logits[0, -1].argmax())
        if token == stop_id:
            break
        answer.append(token)
        fed = [token]
    return answer
