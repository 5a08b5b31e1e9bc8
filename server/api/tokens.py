"""Edit text -> token ids, with the model's own tokenizer and the adapter's limit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from incomes_server.api.schemas import EditContent
from incomes_server.edits.model import NewEdit
from tokenizers import Tokenizer

from incomes_plugin.errors import EditTooLong, InvalidValue, UnsupportedEngine


class EditTokenizer:
    """Counts and encodes edit texts; no BOS and no gist tokens, capture adds those."""

    def __init__(self, model_dir: Path, max_edit_tokens: int, gist_token_ids: Sequence[int]) -> None:
        path = model_dir / "tokenizer.json"
        if not path.is_file():
            raise UnsupportedEngine(f"{model_dir} has no tokenizer.json; save the checkpoint with a fast tokenizer")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._gist_ids = frozenset(gist_token_ids)
        self._max_gists = len(gist_token_ids)
        self.max_edit_tokens = max_edit_tokens

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of an edit text.

        Raises:
            EditTooLong: names the limit and the count.
            InvalidValue: the text spells a gist token.
        """
        ids = self.ids(text)
        if len(ids) > self.max_edit_tokens:
            raise EditTooLong(
                f"the edit has {len(ids)} tokens; this model takes at most {self.max_edit_tokens}. "
                "Say it shorter, or split it into several edits",
                param="text",
            )
        if not ids:
            raise InvalidValue("the edit text has no tokens", param="text")
        if not self._gist_ids.isdisjoint(ids):
            raise InvalidValue("the edit text spells a token reserved for gists", param="text")
        return ids

    def ids(self, text: str) -> tuple[int, ...]:
        """Token ids of any text, however long."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def num_gists(self, token_ids: Sequence[int]) -> int:
        """Gist entries that an edit of these tokens takes, as `EditAdapter.num_gists` counts."""
        return max(1, min(len(token_ids), self._max_gists))

    def new_edit(self, content: EditContent) -> NewEdit:
        """The store's form of a request body."""
        return NewEdit(content.text, self.encode(content.text), content.external_id, content.metadata)
