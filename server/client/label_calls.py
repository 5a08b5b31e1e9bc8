"""Calls of labels and snapshots; see `calls.py`."""

from __future__ import annotations

from incomes_server.api.admin.label_schemas import DiffObject, LabelObject, SnapshotObject
from incomes_server.api.admin.schemas import Deleted, Page, WaitFor
from incomes_server.client.calls import Call, ListCall, Order, list_call, segment, waiting_call


def list_labels(edit_set: str) -> Call[Page[LabelObject]]:
    """The labels of an edit set, by name."""
    return Call("GET", _labels(edit_set), Page[LabelObject].model_validate)


def get_label(edit_set: str, label: str) -> Call[LabelObject]:
    """Where a label points, and where it pointed before."""
    return Call("GET", _labels(edit_set, label), LabelObject.model_validate)


def move_label(
    edit_set: str, label: str, to: str = "head", *, moves: int | None = None, timeout_s: float = 30.0
) -> Call[LabelObject]:
    """Point a label, made if needed, at `head`, a version, a snapshot's id or another label's state: promote or roll
    back. Fails with `EtagMismatch` unless it has made `moves` moves."""
    path, body = _labels(edit_set, label), {"to": to}
    return waiting_call("PUT", path, LabelObject, WaitFor.ACTIVE, timeout_s, json=body, version=moves)


def delete_label(edit_set: str, label: str, *, moves: int | None = None, timeout_s: float = 30.0) -> Call[Deleted]:
    """Delete a label; the snapshots stay."""
    return waiting_call("DELETE", _labels(edit_set, label), Deleted, WaitFor.ACTIVE, timeout_s, version=moves)


def list_snapshots(edit_set: str, *, order: Order = "desc", most: int | None = None) -> ListCall[SnapshotObject]:
    """The states that an edit set has had, the newest first."""
    return list_call("/v1/snapshots", Page[SnapshotObject], most, edit_set=edit_set, order=order)


def get_snapshot(snapshot: str) -> Call[SnapshotObject]:
    """A state by its id."""
    return Call("GET", f"/v1/snapshots/{segment(snapshot)}", SnapshotObject.model_validate)


def diff_snapshots(edit_set: str, base: str, target: str = "head") -> Call[DiffObject]:
    """What one state has more and less than another; each is named as in `move_label`."""
    params = {"from": base, "to": target}
    return Call("GET", f"/v1/edit_sets/{segment(edit_set)}/diff", DiffObject.model_validate, params)


def _labels(edit_set: str, label: str | None = None) -> str:
    return f"/v1/edit_sets/{segment(edit_set)}/labels" + ("" if label is None else f"/{segment(label)}")
