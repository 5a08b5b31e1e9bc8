"""What both backends share: the tokenizer, its chat template, where answers end, and how much fits into a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from incomes_plugin.lab.evaluation.interface import Turn
from incomes_plugin.model.edit_encoder import EditEncoder


class ChatModel:
    """Tokenizer and limits of a base.

    Args:
        base_dir: its checkpoint.
        max_context_tokens: at most; never more than the base has positions.

    Attributes:
        edit_ids: token ids of an edit's text.
        stop_ids: tokens that end an answer: the tokenizer's, and those of the generation config, as vLLM takes them.
    """

    def __init__(self, base_dir: Path, max_context_tokens: int) -> None:
        self.base_dir = base_dir
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base_dir)
        self.edit_ids = EditEncoder(self.text_ids)
        positions = int(AutoConfig.from_pretrained(base_dir).max_position_embeddings)
        self.max_context_tokens = min(max_context_tokens, positions)
        self.stop_ids = frozenset({int(self.tokenizer.eos_token_id), *_generation_stops(base_dir)})

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def chat_ids(self, messages: Sequence[Turn]) -> list[int]:
        """Token ids of a chat that the assistant should continue."""
        turns = [{"role": turn.role, "content": turn.content} for turn in messages]
        return self.text_ids(self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))


def _generation_stops(base_dir: Path) -> list[int]:
    if not (base_dir / "generation_config.json").is_file():
        return []
    named = GenerationConfig.from_pretrained(base_dir).eos_token_id
    return [] if named is None else [named] if isinstance(named, int) else list(named)
