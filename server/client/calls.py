"""Every call of the admin API as a value: what is sent, and what the answer becomes. Pure: nothing is sent here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

from incomes_server.api.admin.replica_schemas import ReplicaObject, WorkerObject
from incomes_server.api.admin.schemas import (
    Deleted,
    EditObject,
    EditSetObject,
    ImportResult,
    Page,
    ResourceT,
    WaitFor,
)
from incomes_server.edits.model import OnConflict
from incomes_server.edits.verbatim import VerbatimState

from incomes_plugin.gist.edit import EditKind

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 60.0
LONG_TIMEOUT_S = 600.0
SPARE_S = 30.0
"""What a call may take beyond the time that the server may wait."""
Order = Literal["asc", "desc"]


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request.

    Attributes:
        parse: of the answer's JSON.
        json: body, where it is JSON; `content` where it is not; `upload`, a file that is sent as multipart.
        version: the write happens only at this version of what it is about (`If-Match`).
    """

    method: str
    path: str
    parse: Callable[[Any], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    content: bytes | None = None
    upload: Path | None = None
    version: int | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S

    @property
    def is_write(self) -> bool:
        """Whether it changes something."""
        return self.method != "GET"


@dataclass(frozen=True)
class LinesCall:
    """An answer of JSONL, read line by line."""

    path: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ListCall(Generic[ResourceT]):
    """A list, page by page; `most` items, None = all."""

    first: Call[Page[ResourceT]]
    most: int | None = None

    def page(self, after: str | None, seen: int) -> Call[Page[ResourceT]] | None:
        """The call for the page behind the item `after`; None when `most` are there."""
        left = 100 if self.most is None else min(100, self.most - seen)
        return replace(self.first, params={**self.first.params, "limit": left, "after": after}) if left > 0 else None


def add_edit(
    text: str,
    *,
    edit_set: str | None = None,
    external_id: str | None = None,
    metadata: Mapping[str, str] | None = None,
    source: Mapping[str, str] | None = None,
    author: str | None = None,
    justification: str | None = None,
    supersedes: Sequence[str] | None = None,
    on_conflict: OnConflict | str | None = None,
    kind: EditKind | None = None,
    title: str | None = None,
    questions: Sequence[str] | None = None,
    wait: WaitFor | str = WaitFor.ACTIVE,
    timeout_s: float = 30.0,
    **more: Any,
) -> Call[EditObject]:
    """Add an edit; `reached` of the answer says how far it has come. `more`: further fields of the body."""
    body: dict[str, Any] = {"text": text, "edit_set": edit_set, "external_id": external_id, "metadata": metadata}
    body |= {"source": source, "author": author, "justification": justification, "supersedes": supersedes}
    body |= {"on_conflict": on_conflict, "kind": kind, "title": title, "questions": questions, **more}
    return waiting_call("POST", "/v1/edits", EditObject, wait, timeout_s, json=given(body))


def replace_edit(
    edit_id: str,
    text: str,
    *,
    external_id: str | None = None,
    metadata: Mapping[str, str] | None = None,
    on_conflict: OnConflict | str | None = None,
    kind: EditKind | None = None,
    title: str | None = None,
    questions: Sequence[str] | None = None,
    version: int | None = None,
    wait: WaitFor | str = WaitFor.ACTIVE,
    timeout_s: float = 30.0,
    **more: Any,
) -> Call[EditObject]:
    """Give an edit a new text, as its next version; kind, title and questions stay where they are not given. Fails with
    `EtagMismatch` unless it is at `version`."""
    said = {"text": text, "external_id": external_id, "metadata": metadata, "on_conflict": on_conflict}
    body = given(said | {"kind": kind, "title": title, "questions": questions} | more)
    return waiting_call(
        "POST", f"/v1/edits/{segment(edit_id)}", EditObject, wait, timeout_s, json=body, version=version
    )


def retire_edit(edit_id: str, *, version: int | None = None, timeout_s: float = 30.0) -> Call[EditObject]:
    """Take an edit out of service; `reached` is `active` when no replica uses it any more."""
    path = f"/v1/edits/{segment(edit_id)}/retire"
    return waiting_call("POST", path, EditObject, WaitFor.ACTIVE, timeout_s, version=version)


def restore_edit(
    edit_id: str, *, version: int | None = None, wait: WaitFor | str = WaitFor.ACTIVE, timeout_s: float = 30.0
) -> Call[EditObject]:
    """Bring a retired edit back, as its next version."""
    return waiting_call("POST", f"/v1/edits/{segment(edit_id)}/restore", EditObject, wait, timeout_s, version=version)


def erase_edit(edit_id: str, *, version: int | None = None, timeout_s: float = 30.0) -> Call[Deleted]:
    """Take an edit out of service and erase its text and gists, for good."""
    return waiting_call("DELETE", f"/v1/edits/{segment(edit_id)}", Deleted, WaitFor.ACTIVE, timeout_s, version=version)


def disable_edit(edit_id: str, *, version: int | None = None, timeout_s: float = 30.0) -> Call[EditObject]:
    """Switch an edit off: no later request reads it."""
    path = f"/v1/edits/{segment(edit_id)}/disable"
    return waiting_call("POST", path, EditObject, WaitFor.ACTIVE, timeout_s, version=version)


def enable_edit(edit_id: str, *, version: int | None = None, timeout_s: float = 30.0) -> Call[EditObject]:
    """Switch an edit on again."""
    path = f"/v1/edits/{segment(edit_id)}/enable"
    return waiting_call("POST", path, EditObject, WaitFor.ACTIVE, timeout_s, version=version)


def approve_edit(edit_id: str, *, version: int, timeout_s: float = 30.0) -> Call[EditObject]:
    """Let a version of an edit of a two-person set in, if it still is the newest; another key wrote it."""
    path = f"/v1/edits/{segment(edit_id)}/approve"
    return waiting_call("POST", path, EditObject, WaitFor.ACTIVE, timeout_s, version=version)


def get_edit(edit_id: str, *, version: int | None = None) -> Call[EditObject]:
    """An edit, at its newest version or an older one."""
    return Call("GET", f"/v1/edits/{segment(edit_id)}", EditObject.model_validate, {"version": version})


def list_edits(
    *,
    edit_set: str | None = None,
    status: str | None = None,
    document_id: str | None = None,
    author: str | None = None,
    conflict: bool | None = None,
    kind: EditKind | None = None,
    verbatim: VerbatimState | str | None = None,
    order: Order = "desc",
    most: int | None = None,
) -> ListCall[EditObject]:
    """Edits, the newest first."""
    wanted = {"edit_set": edit_set, "status": status, "document_id": document_id, "author": author}
    wanted |= {"kind": kind, "verbatim": verbatim}
    return list_call("/v1/edits", Page[EditObject], most, **wanted, conflict=conflict, order=order)


def import_edits(
    lines: Sequence[bytes],
    *,
    edit_set: str | None = None,
    dry_run: bool = False,
    on_conflict: OnConflict | str | None = None,
    wait: WaitFor | str = WaitFor.ACTIVE,
    timeout_s: float = 600.0,
) -> Call[ImportResult]:
    """Add the edits of JSONL lines in one request; every line has its result."""
    params = {"edit_set": edit_set, "dry_run": dry_run, "wait": str(wait), "timeout_s": timeout_s}
    params |= given({"on_conflict": on_conflict})
    content, timeout_s = b"\n".join(lines), timeout_s + 600 + SPARE_S
    return Call("POST", "/v1/edits/import", ImportResult.model_validate, params, content=content, timeout_s=timeout_s)


def create_edit_set(
    name: str, *, two_person: bool = False, on_conflict: OnConflict | str = OnConflict.FLAG
) -> Call[EditSetObject]:
    """Make an empty edit set."""
    body = {"name": name, "two_person": two_person, "on_conflict": on_conflict}
    return Call("POST", "/v1/edit_sets", EditSetObject.model_validate, json=body)


def disable_edit_set(edit_set: str, *, timeout_s: float = 30.0) -> Call[EditSetObject]:
    """Switch a set off: its requests are answered without edits, and say so."""
    path = f"/v1/edit_sets/{segment(edit_set)}/disable"
    return waiting_call("POST", path, EditSetObject, WaitFor.ACTIVE, timeout_s)


def enable_edit_set(edit_set: str, *, timeout_s: float = 30.0) -> Call[EditSetObject]:
    """Switch a set on again."""
    return waiting_call("POST", f"/v1/edit_sets/{segment(edit_set)}/enable", EditSetObject, WaitFor.ACTIVE, timeout_s)


def get_edit_set(edit_set: str) -> Call[EditSetObject]:
    """An edit set by its name or id."""
    return Call("GET", f"/v1/edit_sets/{segment(edit_set)}", EditSetObject.model_validate)


def list_edit_sets(*, order: Order = "desc", most: int | None = None) -> ListCall[EditSetObject]:
    """The project's edit sets, the newest first."""
    return list_call("/v1/edit_sets", Page[EditSetObject], most, order=order)


def delete_edit_set(edit_set: str, *, version: int | None = None, timeout_s: float = 30.0) -> Call[Deleted]:
    """Retire every edit of the set and hide it. Fails with `EtagMismatch` unless the set is at `version`."""
    path = f"/v1/edit_sets/{segment(edit_set)}"
    return waiting_call("DELETE", path, Deleted, WaitFor.ACTIVE, timeout_s, version=version)


def list_workers() -> Call[Page[WorkerObject]]:
    """Who compresses edits."""
    return Call("GET", "/v1/workers", Page[WorkerObject].model_validate)


def list_replicas() -> Call[Page[ReplicaObject]]:
    """The engines, and how far behind each is."""
    return Call("GET", "/v1/replicas", Page[ReplicaObject].model_validate)


def waiting_call(
    method: str, path: str, kind: type[ResourceT], wait: WaitFor | str, timeout_s: float, **more: Any
) -> Call[ResourceT]:
    """The call of a write that waits."""
    params = {"wait": str(wait), "timeout_s": timeout_s}
    return Call(method, path, kind.model_validate, params, timeout_s=timeout_s + SPARE_S, **more)


def list_call(path: str, kind: type[Page[ResourceT]], most: int | None, /, **params: Any) -> ListCall[ResourceT]:
    """The call of a list of resources of a kind."""
    return ListCall(Call("GET", path, kind.model_validate, params), most)


def given(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in body.items() if value is not None}


def segment(value: str) -> str:
    """One segment of a path, whatever it holds."""
    return quote(value, safe="")
