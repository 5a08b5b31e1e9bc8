"""Edit text -> token ids, with the base's own tokenizer and the adapter's limit.

The text is stored as the caller sent it; what is compressed is described in `incomes_plugin/model/edit_encoder.py`. A
text that spells a special token of the base (`<|im_end|>`) is text: it becomes the tokens of its characters.
"""

from __future__ import annotations

from pathlib import Path

from incomes_server.api.admin.schemas import CreateEdit, EditContent
from incomes_server.edits.model import NewEdit, OnConflict
from incomes_server.edits.verbatim import RecallKeys, found_by
from tokenizers import Tokenizer

from incomes_plugin.errors import EditTooLong, InvalidValue, UnsupportedEngine
from incomes_plugin.model.edit_encoder import EditEncoder


class EditTokenizer:
    """Counts and encodes edit texts. The chat template is put around them later, by the capture.

    Attributes:
        ids: token ids of any text, however long.
    """

    def __init__(self, base_dir: Path, max_edit_tokens: int) -> None:
        path = base_dir / "tokenizer.json"
        if not path.is_file():
            raise UnsupportedEngine(f"{base_dir} has no tokenizer.json; save the checkpoint with a fast tokenizer")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True  # spelled in a text, they are text
        self.ids = EditEncoder(lambda text: self._tokenizer.encode(text, add_special_tokens=False).ids)
        self.max_edit_tokens = max_edit_tokens

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of an edit text.

        Raises:
            EditTooLong: names the limit and the count.
            InvalidValue: the text has nothing to compress.
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
        return ids

    def found_by(self, keys: RecallKeys | None, text: str) -> tuple[int, ...]:
        """Token ids that an edit's gist is made from: of its text, or of what a verbatim edit is found by. Raises as
        `encode` does."""
        if keys is None:
            return self.encode(text)
        ids = self.ids(found_by(keys))
        if len(ids) > self.max_edit_tokens:
            raise EditTooLong(
                f"title and questions have {len(ids)} tokens; this model takes at most {self.max_edit_tokens}. "
                "Give fewer or shorter questions",
                param="questions" if keys.questions else "title",
            )
        return ids

    def new_edit(self, content: EditContent, former: RecallKeys | None = None) -> NewEdit:
        """The store's form of a request body; `former`: what the version before is found by, if it is a verbatim edit.
        Raises EditTooLong, InvalidValue."""
        keys = content.found_by(former)
        return NewEdit(
            content.text,
            self.found_by(keys, content.text),
            content.external_id,
            content.metadata,
            content.provenance,
            tuple(content.supersedes) if isinstance(content, CreateEdit) else (),
            content.effective_from,
            content.expires_at,
            None if content.on_conflict is None else OnConflict(content.on_conflict),
            keys,
        )
