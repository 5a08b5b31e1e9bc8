"""What a caller says of an edit beside its text: where it comes from, when it is in force. Checked at the write."""

from __future__ import annotations

import time
from typing import Annotated, Self
from urllib.parse import urlsplit

from incomes_server.api.admin.times import GivenTime
from incomes_server.edits.lifecycle import check_schedule
from incomes_server.edits.model import EditProvenance
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from incomes_plugin.errors import InvalidValue

SCHEMES = ("https", "http", "s3", "gs", "file")
MAX_URL_CHARS = 2048


def check_url(url: str) -> str:
    """An absolute URL of a document.

    Raises:
        ValueError: another scheme, no host, white space, or a password, which everyone who reads the edit would see.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or any(c.isspace() or not c.isprintable() for c in url):
        raise ValueError(f"an absolute URL without white space, with one of the schemes {', '.join(SCHEMES)}")
    if parts.scheme != "file" and not parts.hostname:
        raise ValueError("the URL names no host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL holds a user name or a password; give it without")
    return url


def check_line(text: str) -> str:
    """One printable line without white space around it. Raises ValueError."""
    if not text.isprintable() or text != text.strip():
        raise ValueError("one line of printable characters, without white space around it")
    return text


SourceUrl = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_CHARS), AfterValidator(check_url)]
OneLine = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(check_line)]
Justification = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class EditSource(BaseModel):
    """The document that an edit is taken from."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: SourceUrl | None = Field(None, description=f"an absolute URL: {', '.join(SCHEMES)}")
    document_id: OneLine | None = Field(None, description="your own id of the document")

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if self.url is None and self.document_id is None:
            raise ValueError("give `url`, `document_id` or both")
        return self

    @classmethod
    def of(cls, provenance: EditProvenance) -> EditSource | None:
        """Render; None when no document is named. What was stored was checked."""
        if provenance.source_url is None and provenance.document_id is None:
            return None
        return cls.model_construct(url=provenance.source_url, document_id=provenance.document_id)


class EditDetails(BaseModel):
    """Fields of an edit's body beside its text, its names and its metadata."""

    source: EditSource | None = None
    author: OneLine | None = None
    justification: Justification | None = None
    effective_from: GivenTime | None = Field(None, description="in the snapshot from this second on; default: at once")
    expires_at: GivenTime | None = Field(None, description="out of it from this second on; default: never")

    @field_validator("effective_from", "expires_at")
    @classmethod
    def _times_make_sense(cls, at: int | None, info: ValidationInfo) -> int | None:
        start, end = (at, None) if info.field_name == "effective_from" else (info.data.get("effective_from"), at)
        try:
            check_schedule(start, end, int(time.time()))
        except InvalidValue as error:
            raise ValueError(error.message) from error
        return at

    @property
    def provenance(self) -> EditProvenance:
        """The store's form of `source`, `author` and `justification`."""
        source = self.source or EditSource.model_construct()
        return EditProvenance(source.url, source.document_id, self.author, self.justification)
