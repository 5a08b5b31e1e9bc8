"""What both backends share: the tokenizer, its chat template, and how much fits into a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from incomes_plugin.evaluation.interface import Turn


class ChatModel:
    """Tokenizer and limits of an edit-capable model.

    Args:
        model_dir: checkpoint with its adapter.
        max_context_tokens: at most; never more than the model has positions.
    """

    def __init__(self, model_dir: Path, max_context_tokens: int) -> None:
        self.model_dir = model_dir
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model_dir)
        positions = int(AutoConfig.from_pretrained(model_dir).max_position_embeddings)
        self.max_context_tokens = min(max_context_tokens, positions)

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def chat_ids(self, messages: Sequence[Turn]) -> list[int]:
        """Token ids of a chat that the assistant should continue."""
        turns = [{"role": turn.role, "content": turn.content} for turn in messages]
        return self.text_ids(self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
