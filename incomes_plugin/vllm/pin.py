"""Pin a request to a snapshot before the engine sees it: the hook behind `InputProcessor.process_inputs`.

in: an `EngineCoreRequest` and the `EditScope` the server set for the credential; out: the same request with a tag in
`extra_args`: the pinned snapshot, where in the prompt the question stands, and a secret that keeps the KV blocks behind
the prompt to the request itself (`blocks.py`). Without a scope the request is refused.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from incomes_plugin.errors import EngineLost, InvalidRequest, InvalidValue, SelectionFailed
from incomes_plugin.pool.snapshot import SnapshotRef
from incomes_plugin.selection.question import PromptTemplate
from incomes_plugin.selection.routing import QUESTION_TOKENS
from incomes_plugin.telemetry import traceparent
from incomes_plugin.vllm.rows import KEY_PREFIX, RequestTag

PINS_ATTRIBUTE = "incomes_pins"


@dataclass(frozen=True)
class EditScope:
    """What a request may see. Set by the server from the credential, never by the client.

    Attributes:
        edit_set: id of the edit set, or None for the base model.
        snapshot: the snapshot to pin; None or an empty one = stock path, no plan.
        trace: id under which attribution is collected, or None.
        numbered: the ids of its engine requests end with the number of the prompt, as those of `/v1/completions` do.
        probe: find out which verbatim edit leads the picks, for `EditEngine.leads`, and read nothing.
        force: read the likeliest edits in full, whatever verifier and gate say. The canary's.
    """

    edit_set: str | None
    snapshot: SnapshotRef | None
    trace: str | None = None
    force: bool = False
    numbered: bool = False
    probe: bool = False


scope_var: ContextVar[EditScope | None] = ContextVar("incomes_edit_scope", default=None)
capture_var: ContextVar[RequestTag | None] = ContextVar("incomes_capture", default=None)


@contextmanager
def use_scope(scope: EditScope) -> Iterator[None]:
    """Requests added inside the block (in this task and the tasks it starts) have `scope`."""
    token = scope_var.set(scope)
    try:
        yield
    finally:
        scope_var.reset(token)


@contextmanager
def use_capture(tag: RequestTag) -> Iterator[None]:
    """Requests added inside the block are captures or recalls: no pool, no shared prefix cache."""
    token = capture_var.set(tag)
    try:
        yield
    finally:
        capture_var.reset(token)


class Pins(Protocol):
    """Where pinned snapshots are resolved and counted (`registry.SnapshotRegistry`)."""

    @property
    def template(self) -> PromptTemplate:
        """How the base frames texts."""
        ...

    def pin(self, request_id: str, snapshot: SnapshotRef) -> None:
        """Count a request. Raises SnapshotNotFound or SnapshotRetired."""
        ...


def pin_request(request: Any, pins: Pins | None) -> None:
    """Apply the current scope to `request` (an `EngineCoreRequest`), in place.

    Raises:
        SelectionFailed: no scope is set: the request bypassed the server's authorisation.
        InvalidRequest: the client sent one of our `extra_args`, or a kind of request that cannot carry edits.
        SnapshotNotFound, SnapshotRetired, EngineLost: the snapshot cannot be pinned.
    """
    params = request.sampling_params
    extra = (params.extra_args if params is not None else None) or {}
    if any(key.startswith(KEY_PREFIX) for key in extra):
        raise InvalidRequest(f"vllm_xargs may not contain keys that begin with {KEY_PREFIX!r}", param="vllm_xargs")
    if request.prompt_embeds is not None:
        raise InvalidRequest("a prompt is text or tokens here, never embeddings", param="prompt_embeds")
    capture = capture_var.get()
    if capture is not None:
        params.extra_args = {**extra, **capture.to_extra_args()}
        params.skip_reading_prefix_cache = True
        request.cache_salt = "incomes-" + secrets.token_hex(24)  # nobody's prompt may hit the blocks of an edit's text
        return
    scope = scope_var.get()
    if scope is None:
        raise SelectionFailed(
            "the request reached the engine without an edit scope; send it through the server's routes"
        )
    if scope.snapshot is not None and scope.snapshot.num_edits > 0:
        _pin_snapshot(request, params, extra, scope, scope.snapshot, pins)


def _pin_snapshot(
    request: Any, params: Any, extra: dict[str, Any], scope: EditScope, snapshot: SnapshotRef, pins: Pins | None
) -> None:
    if pins is None:
        raise EngineLost("the engine is not attached to an edit engine; see EditEngine.attach")
    prompt = request.prompt_token_ids
    if params is None or request.resumable or not prompt or request.mm_features:
        raise InvalidRequest("edits apply to generation requests with a complete prompt of tokens only")
    if snapshot.edit_set != scope.edit_set:
        raise InvalidValue(f"snapshot {snapshot.id} does not belong to edit set {scope.edit_set}", param="edits")
    pins.pin(request.request_id, snapshot)
    start, end = pins.template.question_span(prompt, QUESTION_TOKENS)
    tag = RequestTag(
        snapshot=snapshot.id,
        question=(start, end),
        lines=pins.template.line_starts(prompt[start:end]),
        read_salt=secrets.token_hex(16),
        trace=scope.trace,
        traceparent=traceparent(),
        prompt=prompt_of(request.request_id) if scope.numbered and scope.trace else 0,
        at_s=int(time.time()),  # taken once, so that all ranks and preempted requests choose alike
        force=scope.force,
        probe=scope.probe,
    )
    params.extra_args = {**extra, **tag.to_extra_args()}


def prompt_of(request_id: str) -> int:
    """Which prompt of a request to `/v1/completions` an engine request is for: `cmpl-…-0`, `cmpl-…-1`.

    Raises:
        SelectionFailed: vLLM names its requests otherwise.
    """
    number = request_id.rpartition("-")[2]
    if not (number.isascii() and number.isdecimal()):
        raise SelectionFailed(
            f"request {request_id} does not say which prompt it is for; its answer has no attribution"
        )
    return int(number)
