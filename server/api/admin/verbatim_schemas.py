"""JSON shapes of verbatim edits: what makes an edit one, and how it is said."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from incomes_server.api.admin.details import OneLine
from incomes_server.edits.verbatim import RecallKeys, VerbatimState, VerbatimStatus
from pydantic import BaseModel, Field

from incomes_plugin.errors import InvalidValue
from incomes_plugin.gist.edit import EditKind

Questions = Annotated[list[OneLine], Field(max_length=16)]


class VerbatimFields(BaseModel):
    """Fields of an edit's body."""

    kind: EditKind | None = Field(
        None, description="`verbatim`: said to the byte where it is asked for; default `fact`, or as the version before"
    )
    title: OneLine | None = Field(None, description="what a verbatim edit is found by")
    questions: Questions = Field(default_factory=list, description="questions that a verbatim edit is the answer to")

    def found_by(self, former: RecallKeys | None = None) -> RecallKeys | None:
        """Of a verbatim edit. Raises InvalidValue: it has nothing that it is found by, or a fact has.

        Args:
            former: of the version before, if that is a verbatim edit; what the body does not say stays.
        """
        keys = RecallKeys(self.title, tuple(self.questions))
        if former is not None and self.kind != "fact":
            title = keys.title if "title" in self.model_fields_set else former.title
            keys = RecallKeys(title, keys.questions if "questions" in self.model_fields_set else former.questions)
        elif self.kind != "verbatim":
            if keys != RecallKeys():
                given = "questions" if self.title is None else "title"
                raise InvalidValue(f'`{given}` is for verbatim edits; give `"kind": "verbatim"` too', param=given)
            return None
        if keys == RecallKeys():
            raise InvalidValue("a verbatim edit is found by its `title` or its `questions`; give one", param="title")
        return keys


class VerbatimObject(BaseModel):
    """How a verbatim edit is said: from `vectors` where it is `verified`, else from its stored text, for the `reason`.
    `bytes` are those of the record, `tokens` those of the text; `margin` is the least lead of a token, in logits."""

    state: VerbatimState
    reason: str | None
    vectors: int
    bytes: int
    tokens: int
    margin: float | None
    steps: int

    @classmethod
    def of(cls, status: VerbatimStatus) -> Self:
        """Render."""
        names = cls.model_fields.keys() - {"bytes"}
        return cls(bytes=status.num_bytes, **{name: getattr(status, name) for name in names})


class RecallObject(BaseModel):
    """A text that was said. `reason`: why not from vectors; null where it was."""

    id: str
    object: Literal["edit.recall"] = "edit.recall"
    version: int
    text: str
    source: str = Field(description="`vectors` or `stored_text`")
    state: VerbatimState
    reason: str | None
