"""Random checkpoints of the four families an edit adapter can be trained for, with what differs between real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from tests.tiny_model import _write_tokenizer

_SHAPE: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 512, "initializer_range": 0.08, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0, "dtype": "float32",
}  # fmt: skip
FAMILIES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {"tie_word_embeddings": False, "head_dim": 32}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, {"tie_word_embeddings": True, "head_dim": 64}),
    "mistral": (MistralConfig, {"tie_word_embeddings": False, "sliding_window": None, "head_dim": 32}),
}
SPARE_ROWS = {"llama": 0, "qwen2": 200, "qwen3": 0, "mistral": 128}
"""Embedding rows behind the vocabulary: enough for the gist tokens in two families, none in the others."""


def write_base(folder: Path, family: str) -> Path:
    """Checkpoint and tokenizer, no adapter; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = _write_tokenizer(folder, [])
    torch.manual_seed(3)
    make, special = FAMILIES[family]
    config = make(vocab_size=tokens + SPARE_ROWS[family], **_SHAPE, **special)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.1)
    with torch.no_grad():  # never trained: such rows are small in real checkpoints, too, and their tokens never said
        for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
            embedding.weight[tokens:] = 0.001
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    return folder
