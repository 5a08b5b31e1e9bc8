"""JSON shapes of validation and preview: what an edit would do, before anybody stores it."""

from __future__ import annotations

from typing import Annotated, Literal

from incomes_server.api.admin.schemas import ConflictObject, CreateEdit, SetRef
from incomes_server.edits.verbatim import RecallKeys
from pydantic import BaseModel, Field, StringConstraints

from incomes_plugin.errors import InvalidValue

AskedText = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class Problem(BaseModel):
    """A rule that the edit breaks, as the error of `POST /v1/edits` would say it."""

    code: str
    message: str
    param: str | None


class ValidationObject(BaseModel):
    """What `POST /v1/edits` would say; `gist_bytes` is the most room that the edit can take. `conflicts` are with edits
    that serve; null where the edit breaks a rule or cannot be compared."""

    object: Literal["edit.validation"] = "edit.validation"
    valid: bool
    num_tokens: int
    max_tokens: int
    gist_bytes: int
    problems: list[Problem]
    conflicts: list[ConflictObject] | None


class PreviewContent(CreateEdit):
    """Body of `POST /v1/edits/preview`: an edit, and what to ask with it and without it."""

    replaces: SetRef | None = Field(None, description="edit that this one would be the next version of")
    questions: list[AskedText] = Field(
        default_factory=list, max_length=16, description="by default one made from the edit's words"
    )
    neighbours: int = Field(8, ge=0, le=32, description="edits nearest to this one whose questions are asked too")
    max_tokens: int = Field(32, ge=1, le=256, description="longest answer")

    def found_by(self, former: RecallKeys | None = None) -> RecallKeys | None:
        """Of no edit that is previewed: any may be asked `questions`. Raises InvalidValue: it is a verbatim one."""
        if self.kind == "verbatim" or (former is not None and self.kind is None):
            raise InvalidValue(
                "a verbatim edit changes no answer that is generated, so there is nothing to preview; "
                "`POST /v1/edits/validate` checks it",
                param="kind",
            )
        if self.title is not None:
            raise InvalidValue("`title` is for verbatim edits, which cannot be previewed", param="title")
        return None


class PreviewAnswer(BaseModel):
    """A question without and with the edit; `weight` is the edit's share of the second answer."""

    question: str
    expected: list[str]
    before: str
    after: str
    changed: bool
    weight: float


class Neighbour(PreviewAnswer):
    """A question made from an edit nearby, which should go on being answered as it was."""

    edit: str


class PreviewObject(BaseModel):
    """Answers without and with an edit; `snapshot` is the state without it."""

    object: Literal["edit.preview"] = "edit.preview"
    edit_set: str
    snapshot: str
    num_tokens: int
    questions: list[PreviewAnswer]
    neighbours: list[Neighbour]
    changed_neighbours: int
    conflicts: list[ConflictObject] | None
