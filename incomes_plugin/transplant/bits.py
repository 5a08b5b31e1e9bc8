"""Bits per byte: a model and a text in, what a byte of it costs out. Compares models of different tokenizers."""

from __future__ import annotations

import math
from textwrap import wrap

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

PASSAGE_LETTERS = 500
"""A passage is read for itself, so that every tokenizer sees the same context; at most 2,000 bytes, or tokens."""


def passages(text: str, most_bytes: int) -> list[str]:
    """Lines of a text, long ones cut, the first `most_bytes` of them; one at least."""
    found: list[str] = []
    spent = 0
    for line in text.splitlines():
        for passage in wrap(line, PASSAGE_LETTERS):
            spent += len(passage.encode())
            if found and spent > most_bytes:
                return found
            found.append(passage)
    return found


@torch.inference_mode()
def bits_per_byte(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> float:
    """Mean over all bytes; every text stands behind the begin token."""
    bits = sum(_bits(model, tokenizer, text) for text in texts)
    return bits / max(1, sum(len(text.encode()) for text in texts))


def _bits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> float:
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = torch.tensor([start, *tokenizer(text, add_special_tokens=False)["input_ids"]])
    hidden = model.base_model(input_ids=ids[None]).last_hidden_state[0, :-1]
    logits = model.get_output_embeddings()(hidden).float()
    return float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum")) / math.log(2)
