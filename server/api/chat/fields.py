"""Our own body fields on vLLM's routes. They are parsed strictly and removed before vLLM sees the body."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from incomes_server.api.chat.routes import known_fields, request_model
from incomes_server.api.http.errors import first_validation_error
from incomes_server.api.http.json_body import load_json, without_nul
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from incomes_plugin.errors import InvalidValue, UnknownParameter


class EditsField(BaseModel):
    """`edits` of a request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    edit_set: str | None = Field(None, min_length=1, max_length=128)
    label: str | None = Field(None, min_length=1, max_length=64)
    snapshot: str | None = Field(None, pattern=r"^snap_[0-9a-f]{24}$")
    mode: Literal["auto", "off", "required"] = "auto"

    _text = field_validator("*", mode="before")(without_nul)

    @model_validator(mode="after")
    def _one_state(self) -> EditsField:
        if self.label is not None and self.snapshot is not None:
            raise ValueError("`label` and `snapshot` both name a state of the edit set; give one of them")
        named = "label" if self.label is not None else "snapshot" if self.snapshot is not None else None
        if self.mode == "off" and named is not None:
            raise ValueError(f"`mode: off` contradicts `{named}`")
        return self


class _OwnFields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    edits: EditsField | None = None
    return_edit_attributions: bool = False


OWN_FIELDS = frozenset(_OwnFields.model_fields)


@dataclass(frozen=True)
class ParsedBody:
    """A request body split into our part and vLLM's.

    Attributes:
        edits: the `edits` object; None when the request has none.
        attributions: the answer shall name the edits that shaped it.
        answers: to each prompt, `n` of the request.
        understood: the body as vLLM's own model reads it; None where vLLM refuses it.
        body: what vLLM gets. A `cache_salt` of the caller keeps vLLM's meaning, within the project.
    """

    edits: EditsField | None
    attributions: bool
    answers: int
    body: bytes
    understood: Any = None


def parse_body(path: str, raw: bytes, *, salt: str | None = None) -> ParsedBody:
    """Split and check the body of a generation route.

    Args:
        salt: keeps the request's KV blocks to those with the same one; beside a `cache_salt` of the caller's own.

    Raises:
        InvalidValue: not a JSON object, or a wrong value.
        UnknownParameter: a field that neither this server, vLLM nor the OpenAI API knows.
    """
    data = load_json(raw)
    if not isinstance(data, dict):
        raise InvalidValue("the request body is not a JSON object", param="body")
    own = {name: data.pop(name) for name in OWN_FIELDS & data.keys()}
    unknown = next((name for name in data if name not in known_fields(path)), None)
    if unknown is not None:
        raise UnknownParameter(f"unknown field `{unknown}`", param=unknown)
    _refuse_reserved(data)
    try:
        fields = _OwnFields.model_validate(own)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise first_validation_error([dict(d) for d in details]) from None
    salted = data if salt is None else {**data, "cache_salt": _salted(salt, data.get("cache_salt"))}
    understood = _as_vllm_reads(path, data)
    if fields.return_edit_attributions and getattr(understood, "use_beam_search", False):
        raise InvalidValue(
            "answers of a beam search have no attribution; drop `use_beam_search` or this field",
            param="return_edit_attributions",
        )
    answers = getattr(understood, "n", None) or 1
    body = json.dumps(salted).encode()
    return ParsedBody(fields.edits, fields.return_edit_attributions, answers, body, understood)


def _salted(salt: str, own: object) -> object:
    """Join both salts to one. A value of the wrong type is left as it is, and vLLM refuses it."""
    if own is not None and not (isinstance(own, str) and own):
        return own
    return hashlib.sha256(json.dumps([salt, own]).encode()).hexdigest()


def _as_vllm_reads(path: str, data: dict[str, Any]) -> Any:
    """The body as vLLM's own model reads it, because some wrong types end in a 500 inside vLLM. None when vLLM refuses
    the body properly itself."""
    try:
        return request_model(path).model_validate(data)
    except ValidationError:
        return None
    except Exception as error:
        raise InvalidValue(f"a field of the body has a wrong type: {type(error).__name__}: {error}") from error


def _refuse_reserved(data: Mapping[str, Any]) -> None:
    """Engine arguments of the plugin come from the server alone."""
    xargs = data.get("vllm_xargs")
    name = next((k for k in xargs if k.startswith("incomes")), None) if isinstance(xargs, dict) else None
    if name is not None:
        raise InvalidValue(f"`vllm_xargs.{name}` is reserved; use `edits`", param=f"vllm_xargs.{name}")
