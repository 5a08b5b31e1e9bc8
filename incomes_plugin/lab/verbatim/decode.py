"""Greedy decoding of vectors: by the model itself while texts are optimised, and by vLLM, which is what serves.

Nothing but `[template | vectors]` is in the context: vectors of this kind destroy whatever else stands beside them
(arXiv 2502.13063 and its successors measured 0 % MMLU), so recall runs alone.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from incomes_plugin.lab.verbatim.frozen import FrozenModel
from incomes_plugin.orphans import guard_children

_ENVIRONMENT = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}


@torch.inference_mode()
def greedy(model: FrozenModel, vectors: torch.Tensor, most_tokens: int) -> list[int]:
    """Tokens that the model says after `vectors` `[K, hidden]`, token by token with a cache; the end token included."""
    cache, said = DynamicCache(config=model.model.config), list[int]()
    fed = model.prompt(vectors)[None]
    while len(said) < most_tokens:
        output = model.model(inputs_embeds=fed, past_key_values=cache, use_cache=True, logits_to_keep=1)
        said.append(int(output.logits[0, -1].argmax()))
        if said[-1] == model.end_id:
            break
        fed = model.embed(said[-1:])[None]
    return said


class VllmRecall:
    """vLLM with prompt embeddings, in this process's child; call `close` when done.

    Args:
        model: whose folder, dtype and template are used.
        max_rows: texts decoded at the same time.
    """

    def __init__(self, model: FrozenModel, max_positions: int, max_rows: int = 32) -> None:
        os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})
        logging.getLogger("vllm").setLevel(logging.ERROR)
        guard_children()
        from vllm import LLM

        self._model = model
        self._llm = LLM(
            model=str(model.folder),
            dtype=str(model.dtype).removeprefix("torch."),  # type: ignore[arg-type]
            enable_prompt_embeds=True,
            enforce_eager=True,
            max_model_len=min(max_positions, model.max_positions),
            max_num_seqs=max_rows,
            disable_log_stats=True,
        )

    def decode(self, vectors: Sequence[torch.Tensor], most_tokens: Sequence[int]) -> list[list[int]]:
        """Tokens after each `[K, hidden]`, all requests at once. A salt for each vector keeps prefix blocks apart."""
        prompts = [
            {"prompt_embeds": (embeds := self._model.prompt(v).cpu()), "cache_salt": _salt(embeds)} for v in vectors
        ]
        return self._generate(prompts, most_tokens)

    def continuations(self, prompts: Sequence[Sequence[int]], most_tokens: Sequence[int]) -> list[list[int]]:
        """What plain generation says after token ids: the speed to compare with."""
        return self._generate([{"prompt_token_ids": list(ids)} for ids in prompts], most_tokens, ignore_eos=True)

    def _generate(self, prompts: list[Any], most_tokens: Sequence[int], **options: Any) -> list[list[int]]:
        from vllm import SamplingParams

        params = [SamplingParams(temperature=0, max_tokens=most, **options) for most in most_tokens]
        return [list(output.outputs[0].token_ids) for output in self._llm.generate(prompts, params, use_tqdm=False)]

    def close(self) -> None:
        """Stop the engine."""
        self._llm.llm_engine.engine_core.shutdown()


def _salt(embeds: torch.Tensor) -> str:
    return hashlib.sha256(embeds.float().numpy().tobytes()).hexdigest()
