"""Tiny checkpoints: donors with any tokenizer, tied or not, and bases with an adapter in their folder `adapter`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.model.adapter import BaseModel, EditAdapter
from tests.tiny_model import TinyModel, write_tiny_model

PIECES = [" the", " cat", " answer", "é", "世", " 12", "ing", "\n\n"]


def write_model(
    folder: Path, tokenizer: PreTrainedTokenizerFast, *, tied: bool, width: int = 48, seed: int = 1
) -> Path:
    """A one-layer Llama for the tokenizer; its rows end one short of the last id."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer) - 1, hidden_size=width, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=tied,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_base(folder: Path, *, tied: bool) -> Path:
    """The tiny model with rows behind its vocabulary; files as published ones have them."""
    write_tiny_model(folder, TinyModel(extra_vocabulary=20))
    if tied:
        model = LlamaForCausalLM.from_pretrained(folder)
        model.config.tie_word_embeddings = True
        model.tie_weights()
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)
        model.save_pretrained(folder)
        adapter = EditAdapter.load(folder / "adapter")
        replace(adapter, base=BaseModel(str(folder), base_fingerprint(folder))).save(folder / "adapter")
    generation = {"bos_token_id": 1, "eos_token_id": [2, 1], "pad_token_id": 0, "temperature": 0.5}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    (folder / "LICENSE").write_text("free\n")
    (folder / "README.md").write_text("# A card\n")
    (folder / "pytorch_model.bin").write_text("an old copy of the weights")
    return folder
