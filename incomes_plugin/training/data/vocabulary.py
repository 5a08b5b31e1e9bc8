"""Token ids of the chat format, looked up once."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from incomes_plugin.training.data.tokenizer import ASSISTANT, BOS, END, SYSTEM, USER


class Vocabulary:
    """Ids of the chat tokens, and plain text encoding."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.bos = self._id(BOS)
        self.end = self._id(END)
        self.system = self._id(SYSTEM)
        self.user = self._id(USER)
        self.assistant = self._id(ASSISTANT)

    def _id(self, token: str) -> int:
        return int(self._tokenizer.convert_tokens_to_ids(token))  # type: ignore[arg-type]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without special tokens."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]
