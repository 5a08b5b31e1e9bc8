"""Calls of trials and evaluations, of projects, keys and the audit log, and of the server's switch; see `calls.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from incomes_server.api.admin.eval_schemas import EvalRunObject, SuiteObject
from incomes_server.api.admin.schemas import Page, WaitFor
from incomes_server.api.admin.tenancy_schemas import (
    ApiKeyObject,
    AuditEventObject,
    DataKeyObject,
    ProjectLimits,
    ProjectObject,
    ServerObject,
)
from incomes_server.api.admin.trial_schemas import PreviewObject, ValidationObject
from incomes_server.api.admin.verbatim_schemas import RecallObject
from incomes_server.client.calls import (
    LONG_TIMEOUT_S,
    SPARE_S,
    Call,
    LinesCall,
    ListCall,
    Order,
    given,
    list_call,
    segment,
    waiting_call,
)


def validate_edit(text: str, *, edit_set: str | None = None, **more: Any) -> Call[ValidationObject]:
    """Which rules an edit would break, all of them. Nothing is written. `more`: further fields of `add`."""
    body = given({"text": text, "edit_set": edit_set, **more})
    return Call("POST", "/v1/edits/validate", ValidationObject.model_validate, json=body)


def preview_edit(
    text: str,
    *,
    edit_set: str | None = None,
    questions: Sequence[str] | None = None,
    replaces: str | None = None,
    neighbours: int | None = None,
    max_tokens: int | None = None,
    **more: Any,
) -> Call[PreviewObject]:
    """Answers without and with an edit, which is dropped afterwards. `more`: further fields of `add`."""
    body = {"text": text, "edit_set": edit_set, "questions": questions, "replaces": replaces, **more}
    body |= {"neighbours": neighbours, "max_tokens": max_tokens}
    return _asked("/v1/edits/preview", PreviewObject, given(body))


def recall_edit(edit_id: str, *, version: int | None = None, timeout_s: float = 30.0) -> Call[RecallObject]:
    """The text of a verbatim edit, from its vectors or as it is stored: `source` says which, `reason` why."""
    path, params = f"/v1/edits/{segment(edit_id)}/recall", given({"version": version, "timeout_s": timeout_s})
    return Call("POST", path, RecallObject.model_validate, params, timeout_s=timeout_s + SPARE_S)


def get_test_suite(edit_set: str) -> Call[SuiteObject]:
    """What an edit set is asked, and whether its labels wait for the answers."""
    return Call("GET", _suite(edit_set), SuiteObject.model_validate)


def set_test_suite(
    edit_set: str,
    questions: Sequence[Mapping[str, Any]] = (),
    *,
    generated: bool = True,
    required: bool = False,
    least_share: float = 1.0,
) -> Call[SuiteObject]:
    """Replace it; a question is `{"question": ..., "expected": [...]}`."""
    body = {"questions": [dict(each) for each in questions], "generated": generated}
    body |= {"required": required, "least_share": least_share}
    return Call("PUT", _suite(edit_set), SuiteObject.model_validate, json=body)


def create_eval_run(edit_set: str, to: str = "head", *, max_tokens: int = 32) -> Call[EvalRunObject]:
    """Ask a state of an edit set its questions, and keep the answers."""
    return _asked("/v1/eval_runs", EvalRunObject, {"edit_set": edit_set, "to": to, "max_tokens": max_tokens})


def get_eval_run(run: str) -> Call[EvalRunObject]:
    """A run: every answer, and what became of those of the run before it."""
    return Call("GET", f"/v1/eval_runs/{segment(run)}", EvalRunObject.model_validate)


def list_eval_runs(edit_set: str, *, order: Order = "desc", most: int | None = None) -> ListCall[EvalRunObject]:
    """The runs of an edit set, the newest first, without answers."""
    return list_call("/v1/eval_runs", Page[EvalRunObject], most, edit_set=edit_set, order=order)


def get_server() -> Call[ServerObject]:
    """Whether all edits of the server are switched off."""
    return Call("GET", "/v1/server", ServerObject.model_validate)


def disable_server(*, timeout_s: float = 30.0) -> Call[ServerObject]:
    """Switch the edits of all projects off; the operator's."""
    return waiting_call("POST", "/v1/server/disable", ServerObject, WaitFor.ACTIVE, timeout_s)


def enable_server(*, timeout_s: float = 30.0) -> Call[ServerObject]:
    """Switch them on again."""
    return waiting_call("POST", "/v1/server/enable", ServerObject, WaitFor.ACTIVE, timeout_s)


def create_project(name: str) -> Call[ProjectObject]:
    """Make a project; the operator's, as the list."""
    return Call("POST", "/v1/projects", ProjectObject.model_validate, json={"name": name})


def list_projects(*, order: Order = "desc", most: int | None = None) -> ListCall[ProjectObject]:
    """The projects that were made so, the newest first."""
    return list_call("/v1/projects", Page[ProjectObject], most, order=order)


def get_limits(project: str) -> Call[ProjectLimits]:
    """The limits that are set for a project."""
    return Call("GET", _project(project), ProjectLimits.model_validate)


def set_limits(project: str, **limits: int | None) -> Call[ProjectLimits]:
    """Replace them: `max_edits`, `max_gist_bytes`, `max_running_requests`, `chat_requests_per_minute`,
    `writes_per_minute`; one that is not given is as the settings say."""
    return Call("POST", _project(project), ProjectLimits.model_validate, json=given(limits))


def get_data_key(project: str) -> Call[DataKeyObject]:
    """The key that a project's texts are encrypted with, and how many edit versions are not under it yet."""
    return Call("GET", f"{_project(project)}/data_key", DataKeyObject.model_validate)


def rotate_data_key(project: str) -> Call[DataKeyObject]:
    """Give it a new one; what is there is encrypted again while the server serves."""
    return Call("POST", f"{_project(project)}/data_key/rotate", DataKeyObject.model_validate)


def erase_data_key(project: str) -> Call[DataKeyObject]:
    """Delete all edit sets of a project and destroy its keys, for good."""
    return Call("DELETE", f"{_project(project)}/data_key", DataKeyObject.model_validate)


def create_key(name: str, scopes: Sequence[str], *, project: str | None = None) -> Call[ApiKeyObject]:
    """Make a key; `secret` of the answer is shown this once."""
    body = given({"name": name, "scopes": list(scopes), "project": project})
    return Call("POST", "/v1/api_keys", ApiKeyObject.model_validate, json=body)


def list_keys(*, project: str | None = None, order: Order = "desc", most: int | None = None) -> ListCall[ApiKeyObject]:
    """A project's keys, the newest first, without secrets; those of the settings are not among them."""
    return list_call("/v1/api_keys", Page[ApiKeyObject], most, project=project, order=order)


def rotate_key(key_id: str, *, grace_s: int = 3600, project: str | None = None) -> Call[ApiKeyObject]:
    """Make a key with the same scopes; the old one works for `grace_s` more."""
    path, body = f"/v1/api_keys/{segment(key_id)}/rotate", {"grace_s": grace_s}
    return Call("POST", path, ApiKeyObject.model_validate, {"project": project}, json=body)


def revoke_key(key_id: str, *, project: str | None = None) -> Call[ApiKeyObject]:
    """End a key on every port within a second."""
    return Call("DELETE", f"/v1/api_keys/{segment(key_id)}", ApiKeyObject.model_validate, {"project": project})


def list_audit_events(*, order: Order = "desc", most: int | None = None) -> ListCall[AuditEventObject]:
    """Who changed what in the project, the newest first."""
    return list_call("/v1/audit_events", Page[AuditEventObject], most, order=order)


def export_audit_events() -> LinesCall:
    """All of them as JSONL, the oldest first."""
    return LinesCall("/v1/audit_events/export")


def _asked(path: str, kind: Any, body: dict[str, Any]) -> Call[Any]:
    """The call of what the engine answers."""
    return Call("POST", path, kind.model_validate, json=body, timeout_s=LONG_TIMEOUT_S + SPARE_S)


def _suite(edit_set: str) -> str:
    return f"/v1/edit_sets/{segment(edit_set)}/test_suite"


def _project(name: str) -> str:
    return f"/v1/projects/{segment(name)}"
